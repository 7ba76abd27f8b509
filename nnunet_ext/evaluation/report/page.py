"""One self-contained HTML page about trained models and their evaluations: what was run, curves, metrics, comparison,
distributions, and best and worst cases.

Whatever is missing is left out with a sentence that says how to get it.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunet_ext import __version__
from nnunet_ext.evaluation.comparison.compare import ALPHA
from nnunet_ext.evaluation.comparison.statistics import EFFECTS, TESTS
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.report import charts, distributions
from nnunet_ext.evaluation.report.attention import describe_attention
from nnunet_ext.evaluation.report.comparison import (
    DEFAULTS,
    DIRECTIONS,
    ComparisonOptions,
    ComparisonPage,
    describe_comparison,
)
from nnunet_ext.evaluation.report.evaluation import (
    GROUPS,
    MethodPage,
    case_rows,
    describe_methods,
    evaluate_command,
    listed,
    shown_classes,
    spell_cell,
    summary_tables,
    switched_columns,
    table_columns,
    uneven_cases,
)
from nnunet_ext.evaluation.report.examples import Examples, describe_examples
from nnunet_ext.evaluation.report.inputs import Evaluated, read_inputs
from nnunet_ext.evaluation.report.model import ModelPage, describe_model
from nnunet_ext.evaluation.report.subsets import describe_subsets
from nnunet_ext.evaluation.results import RULES, spell
from nnunet_ext.evaluation.surface import SURFACE_DEFINITIONS
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path


def write_report(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    fold: str = "0",
    evaluation: Path | None = None,
    images: Path | None = None,
    references: Path | None = None,
    options: ComparisonOptions = DEFAULTS,
) -> None:
    """Write the page; atomically, so an older one stays whole if this one fails.

    Args:
        inputs: model folders (``$nnUNet_results/DatasetXXX_Name/Trainer__Plans__configuration``) and folders of
            ``nnunet_ext evaluate``, each as FOLDER or NAME=FOLDER; those of one name are repeats or folds. The first
            is what the others are compared with.
        output: the HTML file.
        fold: which ``fold_X`` of the model folders.
        evaluation: an evaluation of the only model; its ``fold_X/validation`` if None.
        images: folder with the images of the evaluated cases, for the overlays.
        references: folder with their references; the one that was evaluated if None.
        options: of the comparison, where there are several names.

    Raises:
        UsageError: a folder or an option that is not what it should be.
    """
    read = read_inputs(inputs, fold, evaluation)
    for flag, folder in (("--images", images), ("--references", references)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{flag} {folder} is not a folder")
    if output.is_dir():
        raise UsageError(f"-o {output} is a folder; name a file, such as {output / 'report.html'}")
    models = [describe_model(name, model) for name, model in read.models]
    methods = describe_methods(read.methods)
    dataset_json = read.models[0][1].dataset_json if read.models else None
    if options.arguments and len(methods) < 2:
        raise UsageError(f"{' '.join(options.arguments)} is for a comparison; name evaluations of two methods or more")
    comparison = describe_comparison(read.methods, options) if len(methods) > 1 else None
    examples = describe_examples(methods, images, references, dataset_json) if methods else None
    flags = ["-f", fold] if models else []
    for flag, folder in (("--images", images), ("--references", references)):
        flags += [flag, str(folder.resolve())] if folder else []
    commands = reproduction(models, read.evaluations, comparison, options, [*flags, "-o", str(output)])
    html = render(models, methods, comparison, examples, commands)
    with atomic_path(output) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render(
    models: list[ModelPage],
    methods: list[MethodPage],
    comparison: ComparisonPage | None,
    examples: Examples | None,
    commands: list[str],
) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nnunet_ext.evaluation.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_numbers"] = _json_numbers
    environment.filters["listed"] = listed
    classes = list(dict.fromkeys(name for m in methods for name in m.result.classes))
    columns = table_columns(sum(len(method.result.rows) for method in methods))
    identity_columns = 1 + (len(methods) > 1) + (len(classes) > 1)
    functions = {"spell": spell, "spell_cell": spell_cell, "summary_tables": summary_tables, "case_rows": case_rows}
    constants = {"metrics": METRICS, "groups": GROUPS, "rules": RULES, "surfaces": SURFACE_DEFINITIONS}
    page: str = environment.get_template("report.html.j2").render(
        models=models,
        methods=methods,
        comparison=comparison,
        tests=TESTS,
        effects=EFFECTS,
        alpha=ALPHA,
        directions=DIRECTIONS,
        examples=examples,
        commands=commands,
        title=page_title(models, methods),
        columns=columns,
        classes=classes,
        identity_columns=identity_columns,
        switched=switched_columns(columns, identity_columns),
        uneven=uneven_cases(methods),
        subset_tables=describe_subsets(methods),
        attention=describe_attention(models, methods),
        num_shown=len(shown_classes(classes)),
        distributions=distributions.distribution_charts({method.name: method.result for method in methods}),
        frame=_frame(),
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        **functions,
        **constants,
    )
    return page


def page_title(models: Sequence[ModelPage], methods: Sequence[MethodPage]) -> tuple[str, str, str]:
    """What stands above the heading, the heading, and what stands smaller beside it."""
    datasets = ", ".join(dict.fromkeys(page.model.dataset_name for page in models))
    names = list(dict.fromkeys([method.name for method in methods] + [page.name for page in models]))
    if len(names) > 1:
        return datasets, f"Comparison of {', '.join(names[:-1])} and {names[-1]}", ""
    if models:
        model = models[0].model
        named = "" if models[0].name == model.trainer else f"{models[0].name}: "
        return datasets, f"{named}{model.trainer}", f"{model.configuration}, fold {model.fold}"
    return "Evaluation", methods[0].name, ""


def reproduction(
    models: Sequence[ModelPage],
    evaluations: Sequence[Evaluated],
    comparison: ComparisonPage | None,
    options: ComparisonOptions,
    flags: Sequence[str],
) -> list[str]:
    """The commands behind the page: training, evaluation, comparison, and the report with its other `flags`."""
    commands = [page.command for page in models]
    commands += [shlex.join(evaluate_command(evaluated)) for evaluated in evaluations]
    named = [f"{evaluated.name}={evaluated.folder}" for evaluated in evaluations]
    if comparison and (made := comparison.comparison):
        chances = ["--common-cases", "--resamples", str(made.resamples), "--seed", str(made.seed)]
        commands.append(shlex.join(["nnunet_ext", "compare", *named, *options.arguments, *chances]))
    arguments = [f"{page.name}={page.model.folder}" for page in models] + named
    return [*commands, shlex.join(["nnunet_ext", "report", *arguments, *options.arguments, *flags])]


def _frame() -> dict[str, Any]:
    """Sizes of the drawings, for the templates."""
    line = {name.lower(): getattr(charts, name) for name in ("WIDTH", "HEIGHT", "LEFT", "RIGHT", "TOP", "BOTTOM")}
    return line | {"strip": distributions.STRIP, "label": distributions.LABEL, "radius": distributions.RADIUS}


def _json_numbers(series: list[list[float]]) -> str:
    """Lists of numbers as JSON, 6 significant digits, null for what is not finite."""
    return json.dumps([[float(f"{v:.6g}") if math.isfinite(v) else None for v in values] for values in series])
