"""What the report says about a training: what was run, with which settings, on which data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_ext import __version__
from nnunet_ext.evaluation.report.charts import Chart, read_progress, training_charts
from nnunet_ext.settings.base import spelled
from nnunet_ext.settings.registry import SETTINGS, settings_class
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json
from nnunet_ext.utilities.pictures import FOLDER_NAME, Picture, picture_uri, read_pictures

RUN_NAME = "run.json"
VERSIONS = {"python": "Python", "torch": "PyTorch", "nnunetv2": "nnU-Net", "nnunet_ext": "nnunet_ext"}
HASH_DIGITS = 12


@dataclass(frozen=True)
class Model:
    """A folder ``$nnUNet_results/DatasetXXX_Name/Trainer__Plans__configuration`` and one of its folds."""

    folder: Path
    fold: str
    trainer: str
    plans_name: str
    configuration: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, fold: str) -> Model:
        """Read plans and dataset.json.

        Raises:
            UsageError: not such a folder, or no such fold; the message says what is there.
        """
        folder = folder.resolve()
        if not is_model_folder(folder):
            raise UsageError(
                f"{folder} is no model folder; name $nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION, which holds"
                " plans.json, dataset.json and fold_0"
            )
        if not (folder / f"fold_{fold}").is_dir():
            folds = sorted(path.name[len("fold_") :] for path in folder.glob("fold_*")) or ["none"]
            raise UsageError(f"-f {fold}: {folder} has no fold_{fold}; folds here: {', '.join(folds)}")
        trainer, plans_name, configuration = folder.name.split("__")
        plans, dataset_json = load_json(folder / "plans.json"), load_json(folder / "dataset.json")
        return cls(folder, fold, trainer, plans_name, configuration, plans, dataset_json)

    @property
    def fold_folder(self) -> Path:
        """``fold_0`` and the like."""
        return self.folder / f"fold_{self.fold}"

    @property
    def validation(self) -> Path:
        """Where nnU-Net leaves the predictions of the validation cases."""
        return self.fold_folder / "validation"

    @property
    def dataset_name(self) -> str:
        """``Dataset115_COVID``."""
        return str(self.plans.get("dataset_name", self.folder.parent.name))

    @property
    def plan(self) -> dict[str, Any]:
        """The configuration with what it inherits; empty if the plans lack it."""
        configurations = self.plans.get("configurations", {})
        chain, name = [], self.configuration
        while name in configurations and configurations[name] not in chain:
            chain.append(configurations[name])
            name = configurations[name].get("inherits_from")
        return {key: value for configuration in reversed(chain) for key, value in configuration.items()}

    @property
    def train_command(self) -> str:
        """The command that trains this model."""
        plans_flag = "" if self.plans_name == "nnUNetPlans" else f" -p {self.plans_name}"
        return f"nnUNetv2_train {self.dataset_name} {self.configuration} {self.fold} -tr {self.trainer}{plans_flag}"


def is_model_folder(folder: Path) -> bool:
    """Whether it is named and filled as nnU-Net does it."""
    files = all((folder / name).is_file() for name in ("plans.json", "dataset.json"))
    return len(folder.resolve().name.split("__")) == 3 and files


class Fact(NamedTuple):
    """Something known about a run; `kind` is "text", "code", or "hash" (`value` is short, `full` is all of it)."""

    name: str
    value: str
    kind: str = "text"
    full: str = ""


@dataclass(frozen=True)
class ShownPicture:
    """A picture of the run; without a `uri`, `note` says why it is not shown."""

    picture: Picture
    uri: str = ""
    note: str = ""


@dataclass(frozen=True)
class ModelPage:
    """What the page says about one model."""

    name: str
    model: Model
    command: str
    facts: list[Fact]
    settings: list[tuple[str, str, str, str]]
    settings_note: str
    charts: list[Chart]
    pictures: list[ShownPicture]
    pictures_note: str


def describe_model(name: str, model: Model) -> ModelPage:
    """Collect it; what is missing or cannot be read becomes a sentence."""
    progress = read_progress(model.fold_folder / "progress.csv")
    run = _read_if_there(model.fold_folder / RUN_NAME)
    settings, settings_note = changed_settings(model)
    pictures, pictures_note = shown_pictures(model.fold_folder / FOLDER_NAME)
    return ModelPage(
        name,
        model,
        str(run.get("command") or model.train_command),
        describe_run(model, progress),
        settings,
        settings_note,
        training_charts(progress),
        pictures,
        pictures_note,
    )


def describe_run(model: Model, progress: dict[str, list[float]]) -> list[Fact]:
    """What was run: from ``run.json`` where the training left one; what is unknown is left out."""
    debug = _read_if_there(model.fold_folder / "debug.json")
    run = _read_if_there(model.fold_folder / RUN_NAME)
    data, plan = model.dataset_json, model.plan
    facts = [
        Fact("Trained with", _text(run.get("command")) or model.train_command, "code"),
        Fact("Data set", model.dataset_name),
        Fact("Training cases", _text(data.get("numTraining"))),
        Fact("Channels", ", ".join(map(str, data.get("channel_names", {}).values()))),
        Fact("Classes", ", ".join(f"{n} ({v})" for n, v in data.get("labels", {}).items() if v != 0)),
        Fact("Started", _started(run)),
        Fact("Patch size", _times(plan.get("patch_size"), "voxels (z, y, x)")),
        Fact("Spacing", _times(plan.get("spacing"), "mm")),
        Fact("Batch size", _text(plan.get("batch_size"))),
        Fact("Epochs", _epochs(model, progress, debug)),
        Fact("Training time", _training_time(progress.get("epoch_seconds", []))),
        Fact("Device", _text(debug.get("gpu_name", debug.get("device")))),
        *_versions(run, debug),
        _data_hash(run),
    ]
    return [fact for fact in facts if fact.value]


def _read_if_there(path: Path) -> dict[str, Any]:
    """A JSON object; empty without the file, or if it is none."""
    content: Any = load_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _times(values: list[float] | None, unit: str) -> str:
    """``[32, 256, 256]`` -> ``32 × 256 × 256 unit``."""
    return f"{' × '.join(f'{value:g}' for value in values)} {unit}" if values else ""


def _started(run: dict[str, Any]) -> str:
    continued = run.get("continued") or 0
    times = "" if not continued else ", continued once" if continued == 1 else f", continued {continued} times"
    return f"{str(run['started']).replace('T', ' ')}{times}" if run.get("started") else ""


def _epochs(model: Model, progress: dict[str, list[float]], debug: dict[str, Any]) -> str:
    finished = (model.fold_folder / "checkpoint_final.pth").is_file()
    planned, done = debug.get("num_epochs"), len(progress.get("epoch", []))
    state = "training finished" if finished else "not finished: there is no checkpoint_final.pth"
    count = f"{done} of {planned}" if done and planned else str(done or planned or "number unknown")
    return f"{count}, {state}"


def _training_time(seconds: list[float]) -> str:
    known = [value for value in seconds if math.isfinite(value)]
    if not known:
        return ""
    minutes = round(sum(known) / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min, {sum(known) / len(known):.1f} s per epoch"


def _versions(run: dict[str, Any], debug: dict[str, Any]) -> list[Fact]:
    """Of the training; those of this environment, named as such, for runs that did not record them."""
    recorded = run.get("versions")
    if isinstance(recorded, dict):
        return [Fact(VERSIONS.get(str(name), str(name)), str(value)) for name, value in recorded.items()]
    remark = "installed where this report was written"
    return [
        Fact("PyTorch", _text(debug.get("torch_version"))),
        Fact("nnU-Net", _installed("nnunetv2", remark)),
        Fact("nnunet_ext", f"{__version__} ({remark})"),
    ]


def _installed(package: str, remark: str) -> str:
    try:
        return f"{version(package)} ({remark})"
    except PackageNotFoundError:
        return ""


def _data_hash(run: dict[str, Any]) -> Fact:
    digest = _text(run.get("data_hash"))
    return Fact("Data hash (SHA-256)", digest[:HASH_DIGITS], "hash", digest)


def changed_settings(model: Model) -> tuple[list[tuple[str, str, str, str]], str]:
    """Settings that differ from the defaults as (name, value, default, meaning), and a sentence if there are none."""
    if model.trainer not in SETTINGS:
        return [], f"{model.trainer} is not a trainer of nnunet_ext: it has no settings in the plans."
    kind = settings_class(model.trainer)
    try:
        changed = kind.from_plans(model.plans).changed()
    except UsageError as error:
        return [], f"The settings in the plans cannot be read by this version: {error}."
    if not changed:
        return [], f"All settings of {model.trainer} have their default values."
    defaults, fields = kind().to_dict(), kind.__dataclass_fields__
    rows = [(k, spelled(v), spelled(defaults[k]), str(fields[k].metadata.get("help", ""))) for k, v in changed.items()]
    return rows, ""


def shown_pictures(folder: Path) -> tuple[list[ShownPicture], str]:
    """The pictures that the run left, and a sentence if their list cannot be read."""
    try:
        pictures = read_pictures(folder)
    except UsageError as error:
        return [], f"No pictures: {error}."
    return [show_picture(folder, picture) for picture in pictures], ""


def show_picture(folder: Path, picture: Picture) -> ShownPicture:
    """The picture, or why it is not shown."""
    try:
        return ShownPicture(picture, uri=picture_uri(folder, picture))
    except UsageError as error:
        return ShownPicture(picture, note=f"Not shown: {error}.")
