import csv
import json

import numpy as np
import pytest
from PIL import Image
from toy_model import tiny_plans, write_model

from nnunet_ext.cli.main import main
from nnunet_ext.evaluation.classification.roc import auc

SETTINGS = {
    "features_per_stage": [4, 8, 8, 8, 8, 8],
    "blocks_per_stage": [1, 1, 1, 1],
    "heads_per_stage": [1, 1, 1, 1],
    "num_prototypes": 4,
    "xray_patch_size": [32, 32],
    "num_xray_classes": 2,
    "xray_classes": ["healthy", "covid"],
    "xray_task": "multiclass",
    "xray_mean": 0.5,
    "xray_std": 0.25,
}


@pytest.fixture
def uci_model(tmp_path):
    """A model folder as UCITrainer leaves it: settings filled in from the X-rays, one fold."""
    trainer = pytest.importorskip("nnunet_ext.trainers.uci").UCITrainer
    folder = tmp_path / "nnUNet_results" / "Dataset901_Tiny" / "UCITrainer__nnUNetPlans__3d_fullres"
    return write_model(folder, trainer, tiny_plans() | {"nnunet_ext": {"UCITrainer": SETTINGS}}, (0,))


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "Dataset902_Xrays"
    (folder / "imagesTr").mkdir(parents=True)
    lines = ["image,patient,split,healthy,covid"]
    for i in range(6):
        grey = np.random.default_rng(i).integers(0, 255, (50, 40), dtype=np.uint8)
        Image.fromarray(grey).save(folder / "imagesTr" / f"{i}.png")
        lines.append(f"imagesTr/{i}.png,p{i},{'train' if i < 2 else 'test'},{i % 2},{1 - i % 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_classifies_and_scores_a_split(uci_model, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(uci_model.parents[1]))
    model = ["-d", "901", "-c", "3d_fullres", "-f", "0", "-device", "cpu"]
    output = tmp_path / "out" / "probabilities.csv"
    assert main(["classify", "-i", str(table), "--split", "test", "-o", str(output), *model]) == 0
    header, *rows = read(output)
    assert header == ["image", "healthy", "covid"]
    assert [row[0] for row in rows] == [f"imagesTr/{i}.png" for i in range(2, 6)]
    values = np.array([row[1:] for row in rows], dtype=float)
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)
    assert len(np.unique(values[:, 0])) == 4  # the images decide
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["num_images"] == 4
    assert report["classes"]["covid"]["auc"] == pytest.approx(auc(values[:, 1], [1, 0, 1, 0]))
    printed = capsys.readouterr().out
    assert report["confusion_matrix"]["classes"] == ["healthy", "covid"]
    assert "covid" in printed and "macro AUC" in printed and "4 images have no patient" in printed


def test_a_folder_without_labels_gives_probabilities_only(uci_model, table, tmp_path, capsys):
    output = tmp_path / "p.csv"
    arguments = [
        "-i",
        str(table.parent),
        "-o",
        str(output),
        "-m",
        str(uci_model),
        "-f",
        "0",
        "-device",
        "cpu",
        "--quiet",
    ]
    assert main(["classify", *arguments]) == 0
    assert len(read(output)) == 7
    assert not output.with_suffix(".json").exists()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_unreadable_images_are_named_and_nothing_is_written(uci_model, table, tmp_path, capsys):
    for i in (1, 4):
        (table.parent / "imagesTr" / f"{i}.png").write_bytes(b"no image")
    output = tmp_path / "p.csv"
    arguments = ["-i", str(table), "-o", str(output), "-m", str(uci_model), "-f", "0", "-device", "cpu", "--quiet"]
    assert main(["classify", *arguments]) == 1
    error = capsys.readouterr().err
    assert "2 of 6 images cannot be read" in error and "1.png" in error and "4.png" in error
    assert not output.exists()


def test_a_model_without_an_xray_head_is_refused(trained_model, table, tmp_path, capsys):
    arguments = ["-i", str(table), "-o", str(tmp_path / "p.csv"), "-m", str(trained_model), "-f", "0", "-device", "cpu"]
    assert main(["classify", *arguments]) == 1
    assert "has no X-ray head" in capsys.readouterr().err


@pytest.mark.parametrize("flag,value", [("--batch-size", "0"), ("-o", "results"), ("-o", "x.json")])
def test_arguments_that_cannot_be_are_named(table, tmp_path, capsys, flag, value):
    arguments = ["-i", str(table), "-o", "p.csv", "-m", str(tmp_path), flag, value]
    assert main(["classify", *arguments]) == 1
    assert f"{flag} {value}" in capsys.readouterr().err
