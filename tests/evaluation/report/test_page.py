from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from dataclasses import replace
from html import unescape

import pytest
from report_toy import LESION, NAMES, make_evaluation, make_model, make_result, parsed, visible_text

from nnunet_ext.cli import compare
from nnunet_ext.evaluation.report.comparison import ComparisonOptions
from nnunet_ext.evaluation.report.page import write_report
from nnunet_ext.evaluation.results import EvaluationResult
from nnunet_ext.evaluation.surface import SURFACE_DEFINITIONS
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import Picture, write_pictures


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model, two evaluations, the report of the model with the first of them, and the report of both."""
    root = tmp_path_factory.mktemp("site")
    model = make_model(root)
    make_evaluation(root, model / "dataset.json")
    pictures = model / "fold_0" / "pictures"
    pictures.mkdir()
    (pictures / "usage.png").write_bytes(b"?")
    write_pictures(pictures, [Picture("usage.png", "Use of <prototypes>", "all of them", 'bars, "rising"')])
    write_report([model], root / "report.html", evaluation=root / "predictions", images=root / "images")
    both = [f"UCI={model}", f"UCI={root / 'predictions'}", f"Worse={root / 'worse'}"]
    write_report(both, root / "both.html", images=root / "images")
    return root


@pytest.fixture(scope="module")
def page(site):
    return (site / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def both(site):
    return (site / "both.html").read_text(encoding="utf-8")


def test_says_what_was_run(page):
    for text in (
        "Dataset115_COVID",
        "nnUNetv2_train Dataset115_COVID 3d_lowres 0 -tr UCITrainer -p nnUNetPlans_small",
        "24 × 96 × 80 voxels",
        "5 × 1.5 × 1.5 mm",
        "<dd>3</dd>",  # the batch size of the inheriting configuration
        "12 of 12, not finished",
        "0 h 06 min, 30.0 s per epoch",
        "9.9.9",
    ):
        assert text in page
    assert "private-host" not in page
    row = r"num_prototypes</code></th><td[^>]*>128</td><td[^>]*>256</td><td[^>]*>prototypes per bank"
    assert re.search(row, page)


def test_holds_curves_tables_and_pictures(page):
    tags = parsed(page)
    # 3 cases; 6 axial slices, and 14 coronal and 14 to 18 sagittal ones around the outlines
    assert [a.get("class") for tag, a in tags if tag == "figure"].count("plane") == 9
    assert sum(tag == "image" for tag, _ in tags) == sum("cut" in a.get("class", "") for _, a in tags) > 9 * 6
    assert sum(a.get("class") == "cut" for _, a in tags) == 9  # of each plane one is shown
    charts = [attributes["data-series"] for tag, attributes in tags if attributes.get("class") == "chart"]
    assert len(charts) == 4
    assert json.loads(charts[1])[0][2:5] == [0.5, None, 0.5]
    assert "DSC 0.0000, HD95 inf mm" in page and "1 infinite" in page
    assert "Best: case_10" in page and "Worst: case_empty" in page
    assert "Grey values -1350 to 150." in page


def test_what_a_reader_asks_next(page):
    text = visible_text(page)
    assert "is present in 4 of 4 references." in text
    assert "2 failed entirely (DSC 0): 1 not found at all (case_empty)" not in text  # case_far overlaps a little
    assert "1 failed entirely (DSC 0): 1 not found at all (case_empty)." in text
    assert "No prediction is missing." in text
    assert "nnunet_ext evaluate" in text and "--surface-definition A --nsd-tolerance 3" in text


def test_definition_stands_above_every_table(page, both):
    for html in (page, both):
        assert f"NSD at 3 mm, surface definition A: {SURFACE_DEFINITIONS['A']}" in html
        captions = re.findall(r"<caption>(.*?)</caption>", html)
        named = [c for c in captions if "NSD at 3 mm, surface definition A" in c]
        assert named and all(c in named or "Differences" in c for c in captions)


def test_names_are_escaped(page):
    assert "<b>ground" not in page and "<prototypes>" not in page
    assert page.count("&lt;b&gt;ground-glass&lt;/b&gt; &amp; ") > 4
    assert 'alt="bars, &#34;rising&#34;"' in page


@pytest.mark.parametrize("name", ["report.html", "both.html"])
def test_loads_nothing(site, name):
    html = (site / name).read_text(encoding="utf-8")
    assert "http" not in re.sub(r"data:[^\"]*", "", html.replace("http-equiv", ""))
    for _, attributes in parsed(html):
        for attribute in ("src", "href"):
            assert attributes.get(attribute, "#").startswith(("#", "data:"))
    assert "default-src 'none'" in html
    assert "url(" not in html and "@import" not in html


@pytest.mark.parametrize("name", ["report.html", "both.html"])
def test_is_accessible(site, name):
    tags = parsed((site / name).read_text(encoding="utf-8"))
    assert ("html", {"lang": "en"}) in tags
    assert [tag for tag, _ in tags].count("h1") == 1 == [tag for tag, _ in tags].count("main")
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    pictures = [attributes for tag, attributes in tags if tag == "svg"]
    assert pictures and all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in pictures)
    assert all(a["alt"] for tag, a in tags if tag == "img")
    sliders = [a for tag, a in tags if a.get("type") == "range"]
    assert sliders and all(a["aria-label"] and a["aria-valuetext"] for a in sliders)
    assert all(a["aria-label"] for tag, a in tags if a.get("role") == "region" and "aria-labelledby" not in a)
    identifiers = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert all(a["href"][1:] in identifiers for tag, a in tags if tag == "a")
    assert all(a["aria-labelledby"] in identifiers for _, a in tags if "aria-labelledby" in a)


def test_compares(both):
    text = visible_text(both)
    assert "Comparison of UCI and Worse" in text and "baseline of the comparison" in text
    assert "4 cases that all methods have" in text
    assert "Worse against UCI: no significant difference in 8 of 8 tests." in text
    assert "With so few cases hardly any difference can become significant." in text
    assert "Differences: Worse − UCI" in text
    assert re.search(r'DSC</abbr>.*?<td class="first"><em>best</em> <span>0\.\d{4}', both)
    assert both.count('class="p1" d=') > 9  # the outlines of the second method
    assert "nnunet_ext compare" in text and "--common-cases" in text


def test_an_evaluation_alone(site, tmp_path):
    write_report([site / "predictions"], tmp_path / "report.html", images=site / "images")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = parsed(page)
    identifiers = [a.get("id") for _, a in tags]
    assert not {"run", "settings", "curves", "comparison"} & set(identifiers)
    assert "<h1>predictions</h1>" in page and "<image" in page


def test_repeats_of_one_name_are_averaged(site, tmp_path):
    write_report([f"A={site / name}" for name in ("predictions", "worse")], tmp_path / "report.html")
    text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "2 evaluations: numbers of a case that several have are averaged." in text
    first, second = (EvaluationResult.load(site / name).rows[0]["DSC"] for name in ("predictions", "worse"))
    assert f"{(first + second) / 2:.4f}" in text


def test_evaluations_that_cannot_be_compared(tmp_path):
    other = replace(make_result({"a": 0.5, "b": 0.5}), tolerance_mm=1.0)
    for name, result in (("x", make_result({"a": 0.5, "b": 0.5})), ("y", other)):
        result.save(tmp_path / name)
    write_report([tmp_path / "x", tmp_path / "y"], tmp_path / "report.html")
    text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "These evaluations cannot be compared: the NSD tolerance is 3 mm in" in text
    assert "NSD at 1 mm" in text and "NSD at 3 mm" in text


def test_missing_pieces_are_sentences(tmp_path):
    model = make_model(tmp_path, trainer="nnUNetTrainer")
    for file in ("progress.csv", "debug.json"):
        (model / "fold_0" / file).unlink()
    (model / "plans.json").write_text("{}")
    write_report([model], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed(page)
    assert "has no <code>progress.csv</code>" in page
    assert "nnUNetTrainer is not a trainer of nnunet_ext" in page
    assert "nnunet_ext evaluate $nnUNet_raw/Dataset115_COVID/labelsTr" in page
    assert "number unknown, not finished" in page


def test_evaluation_of_the_validation_folder_is_found(site, tmp_path):
    model = make_model(tmp_path)
    shutil.copytree(site / "predictions", model / "fold_0" / "validation")
    write_report([model], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "case_empty" in page and "No overlays: name the folder with the images" in page


def test_a_case_without_image_keeps_its_line(site, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(site / "images", images)
    (images / "case_empty_0000.nii.gz").unlink()
    model = next(site.glob("Dataset115_COVID/*"))
    write_report([model], tmp_path / "report.html", evaluation=site / "predictions", images=images)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search("No picture: .*case_empty_0000.nii.gz does not exist", page)
    assert page.count('class="plane"') == 6


def test_wrong_folders(site, tmp_path):
    model = make_model(tmp_path)
    output = tmp_path / "report.html"
    for folder in (tmp_path, model / "fold_0", tmp_path / "absent"):
        with pytest.raises(UsageError, match="is no model folder"):
            write_report([folder], output)
    with pytest.raises(UsageError, match="-f 7: .* folds here: 0"):
        write_report([model], output, fold="7")
    with pytest.raises(UsageError, match="run: nnunet_ext evaluate"):
        write_report([model], output, evaluation=site / "images")
    with pytest.raises(UsageError, match="--images .*absent is not a folder"):
        write_report([model], output, images=tmp_path / "absent")
    with pytest.raises(UsageError, match="-o .* is a folder"):
        write_report([model], tmp_path)
    assert not output.exists()


def test_every_case_is_in_the_table(both):
    table = both[both.index('class="sortable cases"') :]
    table = table[: table.index("</table>")]
    assert [table.count(f">{name}</th>") for name in NAMES] == [2] * 4
    assert LESION not in table


def test_outlines_of_averaged_scores_say_whose_they_are(site, tmp_path):
    both = [f"A={site / name}" for name in ("predictions", "worse")]
    write_report(both, tmp_path / "report.html", images=site / "images")
    text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
    found = re.findall(r"the outlines are those of the first, (\S+): DSC (\S+), HD95", text)
    assert len(found) == 3 and {folder for folder, _ in found} == {str(site / "predictions")}
    assert found[0][1] == "1.0000"  # the first evaluation of the best case, which the average is not
    assert "case_empty in 2 of 2 evaluations" in text and "failed entirely in one evaluation or more" in text


def test_methods_with_different_cases(tmp_path):
    make_result({"a": 0.5, "b": 0.5, "c": 0.5}).save(tmp_path / "x")
    make_result({"a": 0.5, "b": 0.5}).save(tmp_path / "y")
    write_report([tmp_path / "x", tmp_path / "y"], tmp_path / "report.html")
    text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
    sentence = "evaluated on different cases (x 3, y 2, 2 of them in common)"
    assert text.index(sentence) < text.index("baseline of the comparison")
    assert "The comparison is restricted to the common cases." in text


def test_the_printed_comparison_has_the_options(site, tmp_path):
    strata = tmp_path / "my cases.csv"
    strata.write_text("case,size\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(NAMES)))
    options = ComparisonOptions(["DSC", "HD95"], "permutation", True, strata, "size")
    output = tmp_path / "report.html"
    write_report([site / "predictions", site / "worse"], output, options=options)
    html = output.read_text(encoding="utf-8")
    parsed(html)
    assert visible_text(html).count("size 0 (n = 2)") == 2  # of the stratum and of its table
    commands = [shlex.split(unescape(found)) for found in re.findall("<li><code>(nnunet_ext .*?)</code>", html)]
    for command in commands[-2:]:
        assert " ".join(options.arguments) in " ".join(command) and str(strata) in command
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    args = parser.parse_args(commands[-2][2:])
    assert (args.metrics, args.test, args.all_pairs, args.by) == (["DSC", "HD95"], "permutation", True, "size")
    with pytest.raises(UsageError, match="is for a comparison; name evaluations of two methods"):
        write_report([site / "predictions"], output, options=options)


def test_many_classes_are_cut_with_a_sentence(tmp_path):
    names = [f"class_{i:02d}" for i in range(30)]
    rows = [row for name in names for row in make_result({f"c{i:02d}": 0.5 for i in range(30)}, name).rows]
    for method in "xy":
        result = replace(make_result({"a": 0.5}), rows=rows, labels={name: i + 1 for i, name in enumerate(names)})
        result.save(tmp_path / method)
    output = tmp_path / "report.html"
    write_report([tmp_path / "x", tmp_path / "y"], output, options=ComparisonOptions(["DSC"], "t"))
    html = output.read_text(encoding="utf-8")
    tags, text = parsed(html), visible_text(html)
    assert sum(a.get("class") == "strip" for _, a in tags) == 3 * 13
    assert sum(a.get("class") == "ranked" for _, a in tags) == 13
    assert "Of 30 classes, here are their mean and the first 12" in text
    assert text.count("12 of 30 classes are listed") == 2
    assert "With so many rows the table has only the main metrics; all are in the metrics.csv" in text
    assert "data-columns" not in html[html.index("<body>") : html.index("<script>")]
    assert len(html) < 1_500_000
