"""Cases worth a look, with the outlines of the reference and of every method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.report.evaluation import MethodPage
from nnunet_ext.evaluation.report.inputs import Evaluated
from nnunet_ext.evaluation.report.overlays import Overlay, draw_case
from nnunet_ext.evaluation.results import EvaluationResult, spell
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

MAX_OUTLINED = 4
"""Methods whose outlines are drawn; more could not be told apart."""


@dataclass(frozen=True)
class ExampleCase:
    """A case, the methods' scores in words, and its pictures; without an overlay, `note` says why.

    Where scores are averages over evaluations, `drawn` says of which evaluation the outlines are, and its score.
    """

    rank: str
    name: str
    scores: list[str]
    overlay: Overlay | None = None
    note: str = ""
    drawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """The cases, the methods whose outlines are drawn, and a sentence where there is something to add."""

    cases: list[ExampleCase]
    outlined: list[str]
    note: str


def describe_examples(
    methods: Sequence[MethodPage], images: Path | None, references: Path | None, dataset_json: dict[str, Any] | None
) -> Examples:
    """Choose the cases and draw them; whatever cannot be drawn becomes a sentence.

    Args:
        methods: in order.
        images: folder of the images; without it there are no pictures.
        references: folder of the references; those evaluated if None.
        dataset_json: channels and labels; looked for beside the folders if None.
    """
    cases = example_cases({method.name: method.result for method in methods})
    if images is None:
        return Examples(cases, [], "No overlays: name the folder with the images (--images, for instance imagesTs).")
    outlined = list(methods[:MAX_OUTLINED])
    names = [method.name for method in outlined]
    note = "" if len(methods) == len(outlined) else f"Outlines are drawn of {', '.join(names)} only."
    first = outlined[0].evaluated[0]
    if dataset_json is None:
        dataset_json = find_dataset_json(first.folder, Path(first.result.reference), images)
    files = OverlayFiles(images, references or Path(first.result.reference), outlined, dataset_json)
    return Examples([files.draw(case) for case in cases], names, note)


def example_cases(results: Mapping[str, EvaluationResult]) -> list[ExampleCase]:
    """Best, median and worst by DSC, averaged over classes and methods; of several methods also where they differ most.

    Cases that every method has, where there are any. Fewer where there are fewer than three cases.
    """
    scores = {name: result.mean_over_classes("DSC") for name, result in results.items()}
    distances = {name: result.mean_over_classes("HD95") for name, result in results.items()}
    every = list(dict.fromkeys(case for found in scores.values() for case in found))
    defined: dict[str, list[float]] = {}
    for case in [case for case in every if all(case in found for found in scores.values())] or every:
        values = [found[case] for found in scores.values() if not math.isnan(found.get(case, math.nan))]
        if values:
            defined[case] = values
    means = {case: sum(values) / len(values) for case, values in defined.items()}
    ranked = sorted(means, key=lambda case: (-means[case], case))
    if not ranked:
        return []
    chosen = {"Best": ranked[0], "Median": ranked[len(ranked) // 2], "Worst": ranked[-1]}
    if len(ranked) == 2:
        del chosen["Median"]
    spread = {case: max(values) - min(values) for case, values in defined.items()}
    if max(spread.values()) > 0:
        chosen["Largest difference"] = max(ranked, key=lambda case: spread[case])
    ranks: dict[str, list[str]] = {}
    for rank, case in chosen.items():
        ranks.setdefault(case, []).append(rank)
    return [
        ExampleCase(
            " and ".join(found).capitalize() if len(ranked) > 1 else "Only", case, _in_words(case, scores, distances)
        )
        for case, found in ranks.items()
    ]


def _in_words(
    case: str, scores: Mapping[str, Mapping[str, float]], distances: Mapping[str, Mapping[str, float]]
) -> list[str]:
    texts = []
    for name, found in scores.items():
        if case in found:
            text = f"DSC {spell('DSC', found[case])}, HD95 {spell('HD95', distances[name][case])} mm"
            text = "undefined, empty in both" if math.isnan(found[case]) else text
            texts.append(text if len(scores) == 1 else f"{name}: {text}")
    return texts


def find_dataset_json(prediction: Path, reference: Path, images: Path) -> dict[str, Any]:
    """The ``dataset.json`` of the predictions, of the model above them, or of the images; empty if there is none."""
    for folder in (prediction, prediction.parent.parent, images.resolve().parent, reference.parent):
        if (folder / "dataset.json").is_file():
            content: dict[str, Any] = load_json(folder / "dataset.json")
            return content
    return {}


@dataclass(frozen=True)
class OverlayFiles:
    """Where the files of the cases lie, and what their values mean."""

    images: Path
    references: Path
    methods: Sequence[MethodPage]
    dataset_json: dict[str, Any]

    def draw(self, example: ExampleCase) -> ExampleCase:
        """The case with its overlay, or with a note why there is none."""
        ending = self.methods[0].result.file_ending
        channel = str(self.dataset_json.get("channel_names", {}).get("0", ""))
        try:
            overlay = draw_case(
                self.images / f"{example.name}_0000{ending}",
                self.references / f"{example.name}{ending}",
                [prediction_file(method, example.name) for method in self.methods],
                self.dataset_json.get("labels", {}).get("ignore"),
                is_ct=channel.lower() == "ct",
            )
        except UsageError as error:
            return replace(example, note=f"No picture: {error}.")
        drawn = [drawn_evaluation(method, example.name) for method in self.methods]
        return replace(example, overlay=overlay, drawn=tuple(text for text in drawn if text))


def evaluations_of(method: MethodPage, case: str) -> list[Evaluated]:
    """The method's evaluations that have the case; outlines are those of the first."""
    return [one for one in method.evaluated if case in one.result.cases]


def prediction_file(method: MethodPage, case: str) -> Path | None:
    """The prediction of the method's first evaluation that has the case; None if none has, or scored it as empty."""
    evaluated = next(iter(evaluations_of(method, case)), None)
    if evaluated is None or case in evaluated.result.missing:
        return None
    folders = (Path(evaluated.result.prediction), evaluated.folder)
    folder = next((folder for folder in folders if folder.is_dir()), evaluated.folder)
    return folder / f"{case}{evaluated.result.file_ending}"


def drawn_evaluation(method: MethodPage, case: str) -> str:
    """Whose outlines are drawn, and that evaluation's own score; empty where the method has one evaluation of it."""
    found = evaluations_of(method, case)
    if len(found) < 2:
        return ""
    result = found[0].result
    alone = replace(result, rows=[row for row in result.rows if row["case"] == case])
    (score,) = _in_words(case, {"": alone.mean_over_classes("DSC")}, {"": alone.mean_over_classes("HD95")})
    return (
        f"{method.name}: scores are averages over {len(found)} evaluations; the outlines are those of the first,"
        f" {found[0].folder}: {score}."
    )
