import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import Workspace, command, write_toy_ct

from nnunet_ext.cli import link
from nnunet_ext.utilities.errors import UsageError


def make_xrays(root: Path, identifier: int, rows: str, task: str = "multiclass") -> Path:
    """Dataset with classes healthy and covid, and an image for every row of the table."""
    folder = root / "nnUNet_raw" / f"Dataset{identifier}_Xrays"
    (folder / "imagesTr").mkdir(parents=True)
    block = {"classification": {"task": task, "classes": ["healthy", "covid"], "labels_file": "labels.csv"}}
    (folder / "dataset.json").write_text(json.dumps({"nnunet_ext": block}))
    (folder / "labels.csv").write_text("image,patient,split,healthy,covid\n" + rows)
    for i, row in enumerate(rows.splitlines()):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / row.split(",")[0])
    return folder


ROWS = "imagesTr/a.png,p0,train,1,0\nimagesTr/b.png,p1,train,0,1\nimagesTr/c.png,p2,val,0,1\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    target = tmp_path / "nnUNet_raw" / "Dataset115_CT"
    target.mkdir()
    (target / "dataset.json").write_text('{"labels": {"background": 0, "lesion": 1}}')
    return tmp_path


def run(*arguments: str, quiet: bool = False) -> int:
    parser = argparse.ArgumentParser()
    link.add_arguments(parser)
    return link.run(argparse.Namespace(**vars(parser.parse_args(arguments)), quiet=quiet))


def relation(root: Path, folder: str = "nnUNet_raw") -> object:
    return json.loads((root / folder / "Dataset115_CT" / "dataset.json").read_text()).get("nnunet_ext")


def test_links_and_says_what_it_did(root, capsys):
    make_xrays(root, 700, ROWS)
    assert run("115", "--xray", "700", "--size", "32") == 0
    assert relation(root) == {"xray": [700]}
    output, warnings = capsys.readouterr()
    assert output.startswith("Dataset700_Xrays: 3 X-rays, 2 classes (multiclass), cached at 32 x 32 pixels: 0.0 MB in ")
    assert "train: 2 (healthy 1, covid 1)\n  val: 1 (healthy 0, covid 1)\n" in output
    assert "nnUNetv2_plan_and_preprocess -d 115" in output
    assert output.endswith("nnUNetv2_train 115 3d_fullres 0 -tr UCITrainer\n")
    assert warnings == ""


def test_second_run_changes_no_file(root):
    make_xrays(root, 700, ROWS)
    run("115", "--xray", "700", "--size", "32", quiet=True)
    cache = root / "nnUNet_preprocessed/Dataset700_Xrays/nnunet_ext_xrays_32"
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(before) == 2
    run("Dataset115_CT", "--xray", "Dataset700_Xrays", "700", "--size", "32", quiet=True)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    assert relation(root) == {"xray": [700]}


def test_quiet_prints_nothing_and_prepared_target_gets_the_relation_too(root, capsys):
    make_xrays(root, 700, ROWS)
    preprocessed = root / "nnUNet_preprocessed/Dataset115_CT"
    preprocessed.mkdir()
    (preprocessed / "dataset.json").write_text("{}")
    assert run("115", "--xray", "700", "--size", "32", quiet=True) == 0
    assert capsys.readouterr() == ("", "")
    assert relation(root) == relation(root, "nnUNet_preprocessed") == {"xray": [700]}
    run("115", "--xray", "700", "--size", "32")
    assert "plan_and_preprocess" not in capsys.readouterr().out


def test_warns_of_classes_without_training_image_and_of_shared_patients(root, capsys):
    make_xrays(root, 700, ROWS.replace("p1,train,0,1", "p0,train,1,0").replace("p2", "p0"))
    assert run("115", "--xray", "700", "--size", "32") == 0
    warnings = capsys.readouterr().err
    assert "warning: Dataset700_Xrays has no training image of: covid\n" in warnings
    assert "warning: Dataset700_Xrays has 1 patients in more than one split: p0\n" in warnings


def test_several_data_sets(root):
    make_xrays(root, 700, ROWS)
    make_xrays(root, 701, ROWS)
    run("115", "--xray", "700", "701", "--size", "32", quiet=True)
    assert relation(root) == {"xray": [700, 701]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("115",), "nothing to link; name a relation"),
        (("116", "--xray", "700"), "116"),
        (("Dataset116_No", "--xray", "700"), "Dataset116_No has no dataset.json"),
        (("115", "--xray", "999"), "999"),
        (("115", "--xray", "115"), "Dataset115_CT is no X-ray data set"),
        (("700", "--xray", "700"), "Dataset700_Xrays holds X-rays with image-level labels"),
        (("115", "--xray", "700", "701"), "Dataset700_Xrays.*Dataset701_Xrays.*differ in task or classes"),
        (("115", "--xray", "700", "702"), "1 of 3 images cannot be read"),
        (("115", "--xray", "700", "--size", "8"), "--size 8 must be at least 16"),
    ],
)
def test_unusable_input_is_refused_and_nothing_is_linked(root, arguments, message):
    make_xrays(root, 700, ROWS)
    make_xrays(root, 701, ROWS, task="multilabel")
    (make_xrays(root, 702, ROWS) / "imagesTr/b.png").write_bytes(b"broken")
    with pytest.raises(UsageError, match=message):
        run(*arguments, quiet=True)
    assert relation(root) is None


def test_classes_are_compared_before_anything_is_cached(root):
    make_xrays(root, 700, ROWS)
    make_xrays(root, 701, ROWS, task="multilabel")
    with pytest.raises(UsageError, match="differ in task or classes"):
        run("115", "--xray", "700", "701", quiet=True)
    assert list((root / "nnUNet_preprocessed").iterdir()) == []


def test_no_nnunet_folders(root, monkeypatch):
    make_xrays(root, 700, ROWS)
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(UsageError, match="nnUNet_preprocessed is not set"):
        run("115", "--xray", "700")


def test_links_other_lesions_and_unlabelled_images_by_the_command(workspace: Workspace):
    raw = workspace.root / "nnUNet_raw"
    write_toy_ct(raw / "Dataset996_Lesions", 2, name="lesion")
    write_toy_ct(raw / "Dataset995_More", 1, name="more", labelled=False)
    arguments = ("link", 998, "--non-target", 996, "--unlabeled", 995, "-c", "3d_fullres", "-p", "nnUNetPlans_tiny")
    output = command("nnunet_ext", *arguments, "-np", 2).stdout
    folder = workspace.root / "nnUNet_preprocessed"
    assert (
        "Dataset996_Lesions: 2 cases (non-target), preprocessed as Dataset998_Toy is:\n"
        f"  3d_fullres: {folder}/Dataset996_Lesions/nnUNetPlans_3d_fullres_of_998\n"
        "Dataset995_More: 1 cases (unlabelled, no label is read), preprocessed as Dataset998_Toy is:\n"
    ) in output
    assert output.endswith(
        "  nnUNetv2_train 996 3d_fullres all -p nnUNetPlans_tiny_of_998"
        "   # weights for the general encoder (setting general_weights)\n"
        "  nnUNetv2_train 998 3d_fullres 0 -tr RDCLTrainer -p nnUNetPlans_tiny\n"
    )
    for file in (workspace.raw / "dataset.json", workspace.preprocessed / "dataset.json"):
        assert json.loads(file.read_text())["nnunet_ext"] == {"xray": [997], "non_target": [996], "unlabeled": [995]}
    cases = sorted(file.name for file in (folder / "Dataset995_More/nnUNetPlans_3d_fullres_of_998").iterdir())
    assert cases == ["more_000.b2nd", "more_000.pkl", "more_000_seg.b2nd"]

    again = command("nnunet_ext", *arguments, "--quiet")
    assert (again.stdout, again.stderr) == ("", "")
    refused = command("nnunet_ext", "link", 998, "--non-target", 998, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("nnunet_ext link: error: --non-target 998: Dataset998_Toy is the target itself")
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_linked_data_train_by_the_hosts_command_with_the_plans_of_the_target(workspace: Workspace):
    """What gives the general encoder its weights: an ordinary run on the non-target data."""
    write_toy_ct(workspace.root / "nnUNet_raw" / "Dataset996_Lesions", 2, name="lesion")
    command("nnunet_ext", "link", 998, "--non-target", 996, "-p", "nnUNetPlans_plain", "--quiet")
    plans = ("-d", 996, "-p", "nnUNetPlans_plain_of_998", "-tr", "BaselineTrainer", "--name", "short", "--quiet")
    lengths = ("num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1")
    command("nnunet_ext", "plan", *plans, "--set", *lengths)
    name = "nnUNetPlans_plain_of_998_short"
    command("nnUNetv2_train", 996, "3d_fullres", "all", "-tr", "BaselineTrainer", "-p", name, "-device", "cpu")
    model = workspace.root / f"nnUNet_results/Dataset996_Lesions/BaselineTrainer__{name}__3d_fullres"
    assert (model / "fold_all/checkpoint_final.pth").is_file()
    assert (model / "fold_all/validation/summary.json").is_file()


def test_links_the_sentences_of_training_cases(root, capsys):
    target = root / "nnUNet_raw" / "Dataset115_CT"
    (target / "imagesTr").mkdir()
    (target / "labelsTr").mkdir()
    for case in ("a", "b"):
        (target / "imagesTr" / f"{case}_0000.png").touch()
        (target / "labelsTr" / f"{case}.png").touch()
    content = {"labels": {"background": 0, "lesion": 1}, "channel_names": {"0": "R"}, "file_ending": ".png"}
    (target / "dataset.json").write_text(json.dumps(content))
    table = root / "texts.csv"
    table.write_text("Image,Description\na.png,A nodule in the left lung.\n")
    assert run("115", "--prompts", str(table)) == 0
    assert relation(root) == {"prompts": "prompts.json"}
    assert json.loads((target / "prompts.json").read_text()) == {"a": "A nodule in the left lung."}
    output = capsys.readouterr().out
    assert "1 sentences, 1 of them different" in output
    assert "1 cases have none and get the default prompt: b" in output

    table.write_text("Image,Description\nc.png,A nodule.\n")
    with pytest.raises(UsageError, match="1 of 1 names are none of the 2 cases: c.png"):
        run("115", "--prompts", str(table))
