import argparse
import json

import numpy as np
import pytest

from nnunet_ext.cli import classification_metrics
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture
def tables(tmp_path):
    generator = np.random.default_rng(0)
    labels, predictions = ["image,patient,split,healthy,covid"], ["image,healthy,covid"]
    for i in range(24):
        sick = i % 2
        covid = 0.3 * sick + 0.7 * generator.random()
        labels.append(f"imagesTr/{i}.png,p{i // 3},{'train' if i < 6 else 'test'},{1 - sick},{sick}")
        predictions.append(f"imagesTr/{i}.png,{1 - covid:.6g},{covid:.6g}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").write_text("\n".join(labels) + "\n")
    (tmp_path / "probabilities.csv").write_text("\n".join(predictions) + "\n")
    return str(tmp_path / "probabilities.csv"), str(tmp_path / "data" / "labels.csv")


def run(*arguments):
    parser = argparse.ArgumentParser()
    classification_metrics.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true")
    return classification_metrics.run(parser.parse_args(arguments))


def test_prints_a_table_and_writes_beside_the_probabilities(tables, tmp_path, capsys):
    assert run(*tables, "--split", "test") == 0
    printed = capsys.readouterr().out
    assert "note: 6 predictions of other splits than test are left out" in printed
    assert "18 images of 6 patients, multiclass" in printed and "DeLong assumes independent images" in printed
    assert "confusion matrix" in printed and "macro AUC" in printed and "classification.json" in printed
    content = json.loads((tmp_path / "classification.json").read_text())
    assert (content["split"], content["labels"], content["num_images"]) == ("test", tables[1], 18)
    assert (tmp_path / "classification.csv").is_file()


def test_options_reach_the_result(tables, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    options = ("--interval", "bootstrap", "--resamples", "150", "--seed", "7", "--threshold", "0.25")
    assert run(*tables, *options, "--task", "multilabel", "-o", str(folder), "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    content = json.loads((folder / "classification.json").read_text())
    assert content["interval"]["description"].endswith("150 resamples, seed 7")
    assert (content["threshold"], content["task"], content["num_images"]) == (0.25, "multilabel", 24)


def test_the_task_of_the_data_set_counts_unless_told(tables, tmp_path):
    block = {"nnunet_ext": {"classification": {"task": "multilabel"}}}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(block))
    for arguments, task in (((), "multilabel"), (("--task", "multiclass"), "multiclass")):
        run(*tables, *arguments, "--quiet")
        assert json.loads((tmp_path / "classification.json").read_text())["task"] == task


def test_no_input_is_overwritten(tables, tmp_path):
    before = (tmp_path / "probabilities.csv").read_text()
    (tmp_path / "probabilities.csv").rename(tmp_path / "classification.csv")
    with pytest.raises(UsageError, match="classification.csv is an input and would be overwritten"):
        run(str(tmp_path / "classification.csv"), tables[1])
    assert (tmp_path / "classification.csv").read_text() == before


def test_a_fault_in_the_labels_names_the_image(tables, tmp_path):
    labels = tmp_path / "data" / "labels.csv"
    labels.write_text(labels.read_text().replace("imagesTr/4.png,p1,train,1,0", "imagesTr/4.png,p1,train,1,1"))
    with pytest.raises(UsageError, match=r"image imagesTr/4.png has 2\), but the task is multiclass"):
        run(*tables, "--task", "multiclass")
