"""One self-contained HTML page about a trained model: what was run, its curves, its metrics, its best and worst cases.

Whatever is missing is left out with a sentence that says how to get it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunet_ext import __version__
from nnunet_ext.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, read_progress, training_charts
from nnunet_ext.evaluation.metrics import DEFINITIONS, MILLIMETRE_METRICS
from nnunet_ext.evaluation.overlays import Overlay, draw_case
from nnunet_ext.evaluation.results import CSV_NAME, RULES, EvaluationResult, spell
from nnunet_ext.settings.registry import SETTINGS, settings_class
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json


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
        parts = folder.name.split("__")
        if len(parts) != 3 or not (folder / "plans.json").is_file() or not (folder / "dataset.json").is_file():
            raise UsageError(
                f"{folder} is no model folder; name $nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION, which holds"
                " plans.json, dataset.json and fold_0"
            )
        if not (folder / f"fold_{fold}").is_dir():
            folds = sorted(path.name[len("fold_") :] for path in folder.glob("fold_*")) or ["none"]
            raise UsageError(f"-f {fold}: {folder} has no fold_{fold}; folds here: {', '.join(folds)}")
        trainer, plans_name, configuration = parts
        plans, dataset_json = load_json(folder / "plans.json"), load_json(folder / "dataset.json")
        return cls(folder, fold, trainer, plans_name, configuration, plans, dataset_json)

    @property
    def fold_folder(self) -> Path:
        """``fold_0`` and the like."""
        return self.folder / f"fold_{self.fold}"

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


@dataclass(frozen=True)
class ExampleCase:
    """A case worth a look; without an overlay, `note` says why."""

    rank: str
    name: str
    scores: str
    overlay: Overlay | None = None
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What the page says about the metrics: `result` is None where there are none, and `note` says why."""

    result: EvaluationResult | None = None
    note: str = ""
    examples: list[ExampleCase] = field(default_factory=list)
    examples_note: str = ""


def write_report(
    model_folder: Path,
    output: Path,
    *,
    fold: str = "0",
    evaluation: Path | None = None,
    images: Path | None = None,
    references: Path | None = None,
) -> None:
    """Write the page; atomically, so an older one stays whole if this one fails.

    Args:
        model_folder: ``$nnUNet_results/DatasetXXX_Name/Trainer__Plans__configuration``.
        output: the HTML file.
        fold: which ``fold_X`` of it.
        evaluation: folder with the files of ``nnunet_ext evaluate``; ``fold_X/validation`` if None.
        images: folder with the images of the evaluated cases, for the overlays.
        references: folder with their references; the one that was evaluated if None.

    Raises:
        UsageError: a folder that is not what it should be.
    """
    model = Model.open(model_folder, fold)
    for flag, folder in (("--images", images), ("--references", references)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{flag} {folder} is not a folder")
    if output.is_dir():
        raise UsageError(f"-o {output} is a folder; name a file, such as {output / 'report.html'}")
    progress = read_progress(model.fold_folder / "progress.csv")
    html = render(model, progress, collect_evaluation(model, evaluation, images, references))
    with atomic_path(output) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render(model: Model, progress: dict[str, list[float]], evaluation: Evaluation) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nnunet_ext.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_numbers"] = _json_numbers
    settings, settings_note = changed_settings(model)
    page: str = environment.get_template("report.html.j2").render(
        model=model,
        facts=describe_run(model, progress),
        settings=settings,
        settings_note=settings_note,
        charts=training_charts(progress),
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        evaluation=evaluation,
        definitions=DEFINITIONS,
        millimetres=MILLIMETRE_METRICS,
        rules=RULES,
        spell=spell,
        isnan=math.isnan,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
    )
    return page


def _json_numbers(series: list[list[float]]) -> str:
    """Lists of numbers as JSON, 6 significant digits, null for what is not finite."""
    return json.dumps([[float(f"{v:.6g}") if math.isfinite(v) else None for v in values] for values in series])


def describe_run(model: Model, progress: dict[str, list[float]]) -> list[tuple[str, str]]:
    """What was run, as (name, value); what is unknown is left out."""
    debug_file = model.fold_folder / "debug.json"
    debug = load_json(debug_file) if debug_file.is_file() else {}
    data, plan = model.dataset_json, model.plan
    plans_flag = "" if model.plans_name == "nnUNetPlans" else f" -p {model.plans_name}"
    labels = ", ".join(f"{name} ({value})" for name, value in data.get("labels", {}).items() if value != 0)
    facts = {
        "Data set": model.dataset_name,
        "Training cases": data.get("numTraining"),
        "Channels": ", ".join(map(str, data.get("channel_names", {}).values())),
        "Classes": labels,
        "Trained with": f"nnUNetv2_train {model.dataset_name} {model.configuration} {model.fold} -tr {model.trainer}"
        + plans_flag,
        "Patch size": _times(plan.get("patch_size"), "voxels (z, y, x)"),
        "Spacing": _times(plan.get("spacing"), "mm"),
        "Batch size": plan.get("batch_size"),
        "Epochs": _epochs(model, progress, debug),
        "Training time": _training_time(progress.get("epoch_seconds", [])),
        "Device": debug.get("gpu_name", debug.get("device")),
        "PyTorch": debug.get("torch_version"),
        "nnU-Net": _version("nnunetv2", "installed where this report was written"),
        "nnunet_ext": f"{__version__} (installed where this report was written)",
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _times(values: list[float] | None, unit: str) -> str:
    """``[32, 256, 256]`` -> ``32 × 256 × 256 unit``."""
    return f"{' × '.join(f'{value:g}' for value in values)} {unit}" if values else ""


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


def _version(package: str, remark: str) -> str:
    try:
        return f"{version(package)} ({remark})"
    except PackageNotFoundError:
        return ""


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
    rows = [
        (k, json.dumps(v), json.dumps(defaults[k]), str(fields[k].metadata.get("help", ""))) for k, v in changed.items()
    ]
    return rows, ""


def collect_evaluation(model: Model, folder: Path | None, images: Path | None, references: Path | None) -> Evaluation:
    """Metrics and example cases.

    Raises:
        UsageError: `folder` is given and holds no evaluation.
    """
    chosen = folder or model.fold_folder / "validation"
    if folder is None and not (chosen / CSV_NAME).is_file():
        hint = f"nnunet_ext evaluate $nnUNet_raw/{model.dataset_name}/labelsTr {chosen} --only-predicted"
        return Evaluation(note=f"No evaluation was given with --evaluation. For the validation cases run: {hint}")
    result = EvaluationResult.load(chosen)
    if images is None:
        note = "No overlays: name the folder with the images (--images, for instance imagesTs)."
        return Evaluation(result, examples=example_cases(result), examples_note=note)
    predictions = next((p for p in (Path(result.prediction), chosen) if p.is_dir()), chosen)
    files = OverlayFiles(images, references or Path(result.reference), predictions, model.dataset_json)
    return Evaluation(result, examples=[_with_overlay(example, files) for example in example_cases(result)])


def example_cases(result: EvaluationResult) -> list[ExampleCase]:
    """Best, median and worst by mean DSC over the classes; fewer where there are fewer than three cases."""
    means = {case: value for case, value in result.mean_over_classes("DSC").items() if not math.isnan(value)}
    ranked = sorted(means, key=lambda case: (-means[case], case))
    if not ranked:
        return []
    chosen = {"Best": ranked[0], "Median": ranked[len(ranked) // 2], "Worst": ranked[-1]}
    if len(ranked) == 2:
        del chosen["Median"]
    distances = result.mean_over_classes("HD95")
    examples: dict[str, ExampleCase] = {}
    for rank, case in chosen.items():
        scores = f"DSC {spell('DSC', means[case])}, HD95 {spell('HD95', distances[case])} mm"
        examples.setdefault(case, ExampleCase(rank if len(ranked) > 1 else "Only", case, scores))
    return list(examples.values())


@dataclass(frozen=True)
class OverlayFiles:
    """Where the three files of a case lie."""

    images: Path
    references: Path
    predictions: Path
    dataset_json: dict[str, Any]


def _with_overlay(example: ExampleCase, files: OverlayFiles) -> ExampleCase:
    ending = files.dataset_json["file_ending"]
    channel = str(files.dataset_json.get("channel_names", {}).get("0", ""))
    try:
        overlay = draw_case(
            files.images / f"{example.name}_0000{ending}",
            files.references / f"{example.name}{ending}",
            files.predictions / f"{example.name}{ending}",
            files.dataset_json.get("labels", {}).get("ignore"),
            is_ct=channel.lower() == "ct",
        )
    except UsageError as error:
        return ExampleCase(example.rank, example.name, example.scores, note=f"No picture: {error}.")
    return ExampleCase(example.rank, example.name, example.scores, overlay)
