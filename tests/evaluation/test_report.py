from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import SimpleITK

from nnunet_ext.evaluation.evaluate import evaluate_folders
from nnunet_ext.evaluation.report import Model, changed_settings, describe_run, example_cases, write_report
from nnunet_ext.evaluation.results import EvaluationResult
from nnunet_ext.utilities.errors import UsageError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
NAMES = ("case_10", "case_2", "case_empty", "case_far")
LESION = '<b>ground-glass</b> & "more"'


def make_model(results, trainer="UCITrainer", epochs=12):
    folder = results / "Dataset115_COVID" / f"{trainer}__nnUNetPlans_small__3d_lowres"
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    plans = {
        "dataset_name": "Dataset115_COVID",
        "configurations": {
            "3d_fullres": {"patch_size": [24, 96, 80], "spacing": [5.0, 1.5, 1.5], "batch_size": 2},
            "3d_lowres": {"inherits_from": "3d_fullres", "batch_size": 3},
        },
        "nnunet_ext": {"UCITrainer": {"num_epochs": 12, "num_prototypes": 128}},
    }
    labels = {"background": 0, LESION: 1}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 11, "file_ending": ".nii.gz"}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (fold / "debug.json").write_text(
        json.dumps({"num_epochs": 12, "torch_version": "9.9.9", "device": "cpu", "hostname": "private-host"})
    )
    with (fold / "progress.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train_losses", "val_losses", "lrs", "epoch_seconds", "loss/xray", "loss/ct"])
        writer.writerows([e, 1 - e / 20, 1.1 - e / 20, 1e-3, 30, "nan" if e == 3 else 0.5, 0.25] for e in range(epochs))
    return folder


def make_evaluation(root):
    """References, predictions (with their evaluation) and images of `NAMES`, from good to missed."""
    for folder in ("references", "predictions", "images"):
        (root / folder).mkdir()
    for shift, name in enumerate(NAMES):
        reference = np.zeros((6, 20, 24), np.uint8)
        reference[2:4, 5:15, 6:16] = 1
        prediction = np.zeros_like(reference) if name == "case_empty" else np.roll(reference, 3 * shift, axis=2)
        image = np.full(reference.shape, -900, np.int16)
        image[reference > 0] = -300
        for folder, suffix, array in (
            ("references", "", reference),
            ("predictions", "", prediction),
            ("images", "_0000", image),
        ):
            volume = SimpleITK.GetImageFromArray(array)
            volume.SetSpacing((1.5, 1.5, 5.0))
            SimpleITK.WriteImage(volume, str(root / folder / f"{name}{suffix}.nii.gz"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model, an evaluation, and the report of both."""
    root = tmp_path_factory.mktemp("site")
    model = make_model(root)
    make_evaluation(root)
    result = evaluate_folders(
        root / "references", root / "predictions", dataset_json=model / "dataset.json", quiet=True
    )
    result.save(root / "predictions")
    write_report(model, root / "report.html", evaluation=root / "predictions", images=root / "images")
    return root


@pytest.fixture(scope="module")
def page(site):
    return (site / "report.html").read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Tags with their attributes, and whether they are closed in order."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(html):
    structure = Structure()
    structure.feed(html)
    assert structure.open == []
    return structure.tags


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
    assert [tag for tag, _ in tags].count("image") == 9  # 3 cases, 3 planes
    charts = [attributes["data-series"] for tag, attributes in tags if attributes.get("class") == "chart"]
    assert len(charts) == 4
    assert json.loads(charts[1])[0][2:5] == [0.5, None, 0.5]
    assert "DSC 0.0000, HD95 inf mm" in page and "1 infinite" in page
    assert "Best: case_10" in page and "Worst: case_empty" in page
    assert "Grey values -1350 to 150." in page


def test_names_are_escaped(page):
    assert "<b>ground" not in page
    assert page.count("&lt;b&gt;ground-glass&lt;/b&gt; &amp; ") > len(NAMES)


def test_loads_nothing(page):
    assert "http" not in page.replace("http-equiv", "")
    for _, attributes in parsed(page):
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "default-src 'none'" in page
    assert "url(" not in page and "@import" not in page


def test_is_accessible(page):
    tags = parsed(page)
    assert ("html", {"lang": "en"}) in tags
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    pictures = [attributes for tag, attributes in tags if tag == "svg"]
    assert pictures and all("aria-label" in a or a.get("aria-hidden") == "true" for a in pictures)
    identifiers = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert all(a["href"][1:] in identifiers for tag, a in tags if tag == "a")


def test_missing_pieces_are_sentences(tmp_path):
    model = make_model(tmp_path, trainer="nnUNetTrainer")
    for file in ("progress.csv", "debug.json"):
        (model / "fold_0" / file).unlink()
    (model / "plans.json").write_text("{}")
    write_report(model, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed(page)
    assert "has no <code>progress.csv</code>" in page
    assert "nnUNetTrainer is not a trainer of nnunet_ext" in page
    assert "nnunet_ext evaluate $nnUNet_raw/Dataset115_COVID/labelsTr" in page
    assert "number unknown, not finished" in page


def test_evaluation_of_the_validation_folder_is_found(site, tmp_path):
    model = make_model(tmp_path)
    shutil.copytree(site / "predictions", model / "fold_0" / "validation")
    write_report(model, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "case_empty" in page and "No overlays: name the folder with the images" in page


def test_a_case_without_image_keeps_its_line(site, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(site / "images", images)
    (images / "case_empty_0000.nii.gz").unlink()
    model = next(site.glob("Dataset115_COVID/*"))
    write_report(model, tmp_path / "report.html", evaluation=site / "predictions", images=images)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search("No picture: .*case_empty_0000.nii.gz does not exist", page)
    assert page.count("<image") == 6


def test_wrong_folders(site, tmp_path):
    model = make_model(tmp_path)
    output = tmp_path / "report.html"
    for folder in (tmp_path, model / "fold_0", tmp_path / "absent"):
        with pytest.raises(UsageError, match="is no model folder"):
            write_report(folder, output)
    with pytest.raises(UsageError, match="-f 7: .* folds here: 0"):
        write_report(model, output, fold="7")
    with pytest.raises(UsageError, match="run: nnunet_ext evaluate"):
        write_report(model, output, evaluation=site / "images")
    with pytest.raises(UsageError, match="--images .*absent is not a folder"):
        write_report(model, output, images=tmp_path / "absent")
    with pytest.raises(UsageError, match="-o .* is a folder"):
        write_report(model, tmp_path)
    assert not output.exists()


def test_settings_of_another_version_are_a_sentence(tmp_path):
    folder = make_model(tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    plans["nnunet_ext"]["UCITrainer"] = {"from_the_future": 1}
    (folder / "plans.json").write_text(json.dumps(plans))
    assert "no setting 'from_the_future'" in changed_settings(Model.open(folder, "0"))[1]
    plans["nnunet_ext"] = {}
    (folder / "plans.json").write_text(json.dumps(plans))
    assert changed_settings(Model.open(folder, "0")) == ([], "All settings of UCITrainer have their default values.")


def test_finished_training(tmp_path):
    folder = make_model(tmp_path)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    assert dict(describe_run(Model.open(folder, "0"), {}))["Epochs"] == "12, training finished"


def result_with(scores):
    rows = [{"case": case, "class": "a", "DSC": score, "HD95": 1.0} for case, score in scores.items()]
    return EvaluationResult(rows, "", "", 3.0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": 0.5, "b": 0.9, "c": 0.1, "d": math.nan, "e": 0.6}, [("Best", "b"), ("Median", "a"), ("Worst", "c")]),
        ({"a": 0.5, "b": 0.9}, [("Best", "b"), ("Worst", "a")]),
        ({"a": 0.5}, [("Only", "a")]),
        ({"a": math.nan}, []),
    ],
)
def test_example_cases(scores, expected):
    assert [(example.rank, example.name) for example in example_cases(result_with(scores))] == expected


def browse(page, profile, *flags, fragment=""):
    """DOM after scripts and the browser's log."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", *flags, "--dump-dom",
        page.as_uri() + fragment,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def cases_in_order(dom):
    table = dom[dom.index('class="sortable"') :]
    return re.findall(r'<tr><th scope="row">(case_\w+)', table[: table.index("</table>")])


@needs_chromium
@pytest.mark.parametrize(
    ("fragment", "order"),
    [
        ("#sort=DSC", ["case_empty", "case_far", "case_2", "case_10"]),
        ("#sort=-DSC", ["case_10", "case_2", "case_far", "case_empty"]),
        ("#sort=HD", ["case_10", "case_2", "case_far", "case_empty"]),  # infinite last
        ("#sort=-HD", ["case_empty", "case_far", "case_2", "case_10"]),
        ("#sort=PPV", ["case_far", "case_2", "case_10", "case_empty"]),  # undefined last in both orders
        ("#sort=-PPV", ["case_10", "case_2", "case_far", "case_empty"]),
        ("#sort=case", ["case_2", "case_10", "case_empty", "case_far"]),  # numbers inside names as numbers
    ],
)
def test_table_sorts(site, tmp_path, fragment, order):
    dom, log = browse(site / "report.html", tmp_path / "profile", fragment=fragment)
    assert cases_in_order(dom) == order
    column = fragment.removeprefix("#sort=")
    state = "descending" if column.startswith("-") else "ascending"
    assert re.findall(r'aria-sort="(\w+)"><button[^>]*data-key="(\w+)"', dom) == [(state, column.lstrip("-"))]
    assert "CONSOLE" not in log


@needs_chromium
def test_clicks_keys_and_checkboxes_work_without_console_errors(site, tmp_path):
    script = """<script>
      const press = (key) => document.querySelector(".chart > svg")
        .dispatchEvent(new KeyboardEvent("keydown", { key }));
      const button = document.querySelector("[data-key=DSC]");
      button.click(); button.click();
      press("Home"); press("ArrowRight");
      document.querySelector("[data-outline=prediction]").click();
      const line = document.querySelector(".slice .prediction");
      document.title = JSON.stringify([location.hash, getComputedStyle(line).display,
        document.documentElement.scrollWidth <= innerWidth,
        performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:")).length]);
    </script></body>"""
    driven = tmp_path / "driven.html"
    driven.write_text((site / "report.html").read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    dom, log = browse(driven, tmp_path / "profile", "--window-size=500,900")
    title = re.search("<title>(.*)</title>", dom)[1]
    assert json.loads(title) == ["#sort=-DSC", "none", True, 0]  # sorted, hidden, no sideways scrolling, no request
    assert cases_in_order(dom)[0] == "case_10"
    assert '<span class="epoch">Epoch 1</span>' in dom and ">0.95</b>" in dom
    assert "CONSOLE" not in log


@needs_chromium
def test_a_script_error_would_be_seen(site, tmp_path):
    broken = tmp_path / "broken.html"
    html = (site / "report.html").read_text(encoding="utf-8")
    broken.write_text(html.replace("</body>", "<script>absent()</script></body>"), encoding="utf-8")
    assert "CONSOLE" in browse(broken, tmp_path / "profile")[1]
