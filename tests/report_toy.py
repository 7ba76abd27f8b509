"""A small model folder, an evaluation and Chromium, for the tests of the report."""

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
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.results import COLUMNS, EvaluationResult

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


def make_evaluation(root, dataset_json):
    """References, predictions (with their evaluation), worse predictions (likewise) and images of `NAMES`.

    The predictions go from good to missed; the worse ones are shifted by two voxels more.
    """
    for folder in ("references", "predictions", "worse", "images"):
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
            ("worse", "", np.roll(prediction, 2, axis=1)),
            ("images", "_0000", image),
        ):
            volume = SimpleITK.GetImageFromArray(array)
            volume.SetSpacing((1.5, 1.5, 5.0))
            SimpleITK.WriteImage(volume, str(root / folder / f"{name}{suffix}.nii.gz"))
    for folder in ("predictions", "worse"):
        evaluate_folders(root / "references", root / folder, dataset_json=dataset_json, quiet=True).save(root / folder)


def make_result(scores, class_name="lesion", folder=""):
    """A result of one class from case -> DSC: nan is empty in both, 0 is missed; HD95 is 10 (1 - DSC)."""
    rows = []
    for case, score in scores.items():
        row = dict.fromkeys(COLUMNS, 0.0) | {"case": case, "class": class_name}
        row |= dict.fromkeys(METRICS, score)
        if not math.isnan(score):
            distance = 10 * (1 - score) if score else math.inf
            overlap = round(1000 * score)
            row |= {"HD95": distance, "ASSD": distance / 5, "TP": overlap, "FN": 1000 - overlap}
            row |= {"reference_ml": 1.0, "prediction_ml": overlap / 1000, "FP": (1000 - overlap) * (score > 0)}
        rows.append(row)
    return EvaluationResult(rows, folder, folder, 3.0, labels={class_name: 1})


class Structure(HTMLParser):
    """Tags with their attributes, and whether they are closed in order."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

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


def visible_text(html):
    """The text between the tags of the body, scripts and styles left out, spaces joined."""
    body = re.sub(r"<(script|style)>.*?</\1>", " ", html[html.index("<body>") :], flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", body))


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


def drive(page, tmp_path, script, *flags):
    """Run a script at the end of a page; what it assigns to ``found`` comes back, with DOM and log."""
    driven = tmp_path / "driven.html"
    end = f"<script>(() => {{ let found; {script}; document.title = JSON.stringify(found); }})();</script></body>"
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", end), encoding="utf-8")
    dom, log = browse(driven, tmp_path / "profile", *flags)
    return json.loads(re.search("<title>(.*)</title>", dom)[1].replace("&amp;", "&")), dom, log
