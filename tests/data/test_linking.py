"""The toy target (998) learns from toy data sets that are made here: 996 with labels, 995 without."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import Workspace, write_toy_ct

from nnunet_ext.data import related_preprocessing
from nnunet_ext.data.linking import check_related, link_related
from nnunet_ext.data.patch_stream import PatchSource, PatchStream, related_sources
from nnunet_ext.data.related_data import preprocessing_hash, raw_cases
from nnunet_ext.trainers.baseline import BaselineTrainer
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
TARGET = "Dataset998_Toy"
MakeRelated = Callable[..., Path]


@pytest.fixture
def make_related(workspace: Workspace) -> MakeRelated:
    """Writes ``Dataset{identifier}_Other`` into nnUNet_raw; returns its folder. There is a fingerprint unless told: to
    extract one takes seconds."""

    def make(identifier: int, num_cases: int = 2, fingerprint: bool = True, **arguments: Any) -> Path:
        folder = workspace.root / "nnUNet_raw" / f"Dataset{identifier}_Other"
        if fingerprint:
            save_json({}, workspace.root / "nnUNet_preprocessed" / folder.name / "dataset_fingerprint.json")
        write_toy_ct(folder, num_cases, **{"name": f"other{identifier}", **arguments})
        return folder

    return make


@pytest.fixture
def others(make_related: MakeRelated) -> None:
    make_related(996)
    make_related(995, labelled=False)


def link(
    non_target: tuple[str, ...] = (),
    unlabeled: tuple[str, ...] = (),
    plans: str = "nnUNetPlans",
    configurations: list[str] | None = None,
) -> dict[str, list[Path]]:
    checked = check_related(TARGET, {"non_target": non_target, "unlabeled": unlabeled}, plans, configurations)
    return link_related(checked, 1, quiet=True).folders


def sources(workspace: Workspace, kind: Any, plans: str = "nnUNetPlans", configuration: str = "3d_fullres") -> Any:
    manager = PlansManager(str(workspace.preprocessed / f"{plans}.json"))
    return related_sources(load_json(workspace.preprocessed / "dataset.json"), kind, manager, configuration)


def files(workspace: Workspace) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (workspace.root / "nnUNet_preprocessed").rglob("*")}


def test_links_both_kinds_and_streams_draw_from_them(workspace, others, capfd):
    folders = link(("996",), ("Dataset995_Other", "995"))
    assert capfd.readouterr().out == ""
    for folder in (workspace.raw, workspace.preprocessed):
        block = load_json(folder / "dataset.json")["nnunet_ext"]
        assert block == {"xray": [997], "non_target": [996], "unlabeled": [995]}
    for kind, identifier in (("non_target", 996), ("unlabeled", 995)):
        (source,) = sources(workspace, kind)
        name = f"Dataset{identifier}_Other"
        assert source.cases == (f"other{identifier}_000", f"other{identifier}_001")
        assert [source.folder] == folders[name]
        assert source.folder.name == "nnUNetPlans_3d_fullres_of_998"
        stream = PatchStream([source], 2, (8, 16, 16), oversample_foreground=1, seed=0)
        assert next(stream).shape == (2, 1, 8, 16, 16)


def test_cases_are_preprocessed_as_the_target_is(workspace, make_related):
    """A copy of the target as its own non-target data: the same voxels must come out."""
    make_related(996, 5, name="other")
    (folder,) = link(("996",))["Dataset996_Other"]
    theirs, ours = folder, workspace.preprocessed / "nnUNetPlans_3d_fullres"
    for number in range(5):
        a = infer_dataset_class(str(theirs))(str(theirs)).load_case(f"other_{number:03d}")
        b = infer_dataset_class(str(ours))(str(ours)).load_case(f"toy_{number:03d}")
        assert np.array_equal(a[0][:], b[0][:])
        assert np.array_equal(a[1][:], b[1][:])
        assert a[3]["class_locations"].keys() == b[3]["class_locations"].keys() == {1}


def test_plans_are_copied_under_a_name_that_tells_the_target(workspace, make_related):
    make_related(996, fingerprint=False)
    link(("996",), plans="nnUNetPlans_tiny")
    folder = workspace.root / "nnUNet_preprocessed/Dataset996_Other"
    copy = load_json(folder / "nnUNetPlans_tiny_of_998.json")
    original = load_json(workspace.preprocessed / "nnUNetPlans_tiny.json")
    assert (copy["dataset_name"], copy["plans_name"]) == ("Dataset996_Other", "nnUNetPlans_tiny_of_998")
    assert copy["configurations"]["3d_fullres"]["data_identifier"] == "nnUNetPlans_3d_fullres_of_998"
    assert "nnunet_ext" not in copy
    assert "nnunet_ext" in original
    same = "foreground_intensity_properties_per_channel"
    assert copy[same] == original[same]
    assert load_json(folder / "dataset.json")["channel_names"] == {"0": "CT"}
    assert len(load_json(folder / "dataset_fingerprint.json")["spacings"]) == 2
    assert len(list((folder / "gt_segmentations").iterdir())) == 2
    # The preprocessing is that of nnUNetPlans too, so plans that share it share the data.
    assert sources(workspace, "non_target", "nnUNetPlans") == sources(workspace, "non_target", "nnUNetPlans_tiny")


def test_labels_of_unlabelled_data_are_not_read(workspace, make_related):
    for file in (make_related(995) / "labelsTr").iterdir():
        file.write_text("broken")
    (folder,) = link(unlabeled=("995",))["Dataset995_Other"]
    for case in ("other995_000", "other995_001"):
        _, segmentation, _, properties = infer_dataset_class(str(folder))(str(folder)).load_case(case)
        assert set(np.unique(segmentation[:])) <= {-1, 0}
        assert "class_locations" not in properties
    assert not (folder.parent / "gt_segmentations").exists()


def test_non_target_data_without_any_foreground_are_linked_with_a_warning(workspace, make_related):
    for file in (make_related(996, fingerprint=False) / "labelsTr").iterdir():
        label = sitk.ReadImage(file)
        sitk.WriteImage(label * 0, file)
    checked = check_related(TARGET, {"non_target": ["996"]}, "nnUNetPlans", None)
    linked = link_related(checked, 1, quiet=True)
    (warning,) = linked.warnings
    assert "cannot extract the fingerprint of Dataset996_Other" in warning
    (source,) = sources(workspace, "non_target")
    assert next(PatchStream([source], 2, (8, 16, 16), oversample_foreground=1, seed=0)).shape == (2, 1, 8, 16, 16)


def test_2d_configuration_cuts_slices_of_the_volumes(workspace, others):
    link(("996",), configurations=["2d", "3d_fullres"])
    flat, volume = (sources(workspace, "non_target", configuration=c)[0] for c in ("2d", "3d_fullres"))
    assert flat.folder != volume.folder
    assert next(PatchStream([flat], 2, (16, 16), seed=0)).shape == (2, 1, 16, 16)


def test_second_call_changes_no_file_and_a_changed_image_is_done_again(workspace, others):
    link(("996",), ("995",))
    before = files(workspace)
    for folder in (workspace.raw, workspace.preprocessed):  # written anew, with what it held
        before.pop(folder / "dataset.json", None)
        before.pop(folder, None)
    link(("996",), ("995",))
    after = files(workspace)
    assert {path: after[path] for path in before} == before
    image = workspace.root / "nnUNet_raw/Dataset996_Other/imagesTr/other996_001_0000.nii.gz"
    os.utime(image, ns=(0, 0))
    link(("996",), ("995",))
    changed = {
        path.parent.name for path, time in files(workspace).items() if path.suffix == ".pkl" and time != before[path]
    }
    assert changed == {"nnUNetPlans_3d_fullres_of_998"}
    assert not list(workspace.root.glob("nnUNet_preprocessed/*/.*"))


def test_interrupted_link_leaves_no_half_data_set_and_is_continued(workspace, make_related, monkeypatch):
    make_related(996, 3)
    done, preprocess_case = [], related_preprocessing._preprocess_case

    def interrupted(dataset: Any, case: Any, *rest: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        preprocess_case(dataset, case, *rest)
        done.append(case.name)

    monkeypatch.setattr(related_preprocessing, "_preprocess_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        link(("996",))
    folder = workspace.root / "nnUNet_preprocessed/Dataset996_Other"
    assert not (folder / "nnUNetPlans_3d_fullres_of_998").exists()
    assert "non_target" not in load_json(workspace.preprocessed / "dataset.json")["nnunet_ext"]
    done.clear()
    link(("996",))
    assert done == ["other996_002"]
    assert len(list((folder / "nnUNetPlans_3d_fullres_of_998").iterdir())) == 9
    assert not list(folder.glob(".*"))


def test_related_cases_never_enter_the_folds(workspace, others):
    link(("996",), ("995",))
    plans, dataset_json = (load_json(workspace.preprocessed / f) for f in ("nnUNetPlans_plain.json", "dataset.json"))
    trainer = BaselineTrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.dataset_class = infer_dataset_class(trainer.preprocessed_dataset_folder)
    names = set()
    for fold in range(5):
        trainer.fold = fold
        names |= {name for part in trainer.do_split() for name in part}
    trainer.fold = "all"
    names |= {name for part in trainer.do_split() for name in part}
    assert names == {f"toy_{number:03d}" for number in range(5)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"non_target": ("998",)}, "--non-target 998: Dataset998_Toy is the target itself"),
        ({"unlabeled": ("998",)}, "--unlabeled 998: Dataset998_Toy is the target itself"),
        ({"non_target": ("996",), "unlabeled": ("996",)}, "Dataset996_Other cannot be both"),
        ({"non_target": ("990",)}, "there is no data set '990'"),
        ({"non_target": ("Dataset990_No",)}, "nnUNet_raw/Dataset990_No does not exist; convert it first"),
        ({"non_target": ("997",)}, "Dataset997_ToyXrays holds X-rays .* link it with --xray"),
        ({"non_target": ("995",)}, "2 cases of Dataset995_Other have no label, e.g. .*other995_000.nii.gz"),
        ({"non_target": ("996",), "plans": "nnUNetResEncPlans"}, "nnUNetResEncPlans.json does not exist"),
        (
            {"non_target": ("996",), "configurations": ["4d"]},
            "-c 4d is not in the plans of Dataset998_Toy; they have 2d,",
        ),
        ({"non_target": ("996", "994")}, "Dataset994_Other holds 2D images, but Dataset998_Toy holds 3D volumes"),
        ({"unlabeled": ("993",)}, "Dataset993_Other has the channels CT, PET, but Dataset998_Toy has CT;"),
        (
            {"unlabeled": ("992",)},
            "1 cases of the unlabelled Dataset992_Other are .* of Dataset998_Toy too, e.g. toy_000",
        ),
        ({"unlabeled": ("991",)}, "Dataset991_Other has no image in .*imagesTr"),
    ],
)
def test_unusable_input_is_refused_before_any_work(workspace, others, make_related, arguments, message):
    make_related(994, 1, flat=True)
    pet = make_related(993, 1)
    shutil.copy(pet / "imagesTr/other993_000_0000.nii.gz", pet / "imagesTr/other993_000_0001.nii.gz")
    save_json({**load_json(pet / "dataset.json"), "channel_names": {"0": "CT", "1": "PET"}}, pet / "dataset.json")
    make_related(992, 1, name="toy", labelled=False)
    make_related(991, 0)
    before = files(workspace)
    with pytest.raises(UsageError, match=message):
        link(**arguments)
    assert files(workspace) == before


def test_leak_is_noticed_without_the_raw_target(workspace, make_related):
    make_related(992, 1, name="toy", labelled=False)
    shutil.rmtree(workspace.raw)
    with pytest.raises(UsageError, match="1 cases of the unlabelled Dataset992_Other"):
        link(unlabeled=("992",))


def test_2d_target_takes_2d_images_only(workspace, others):
    plans = load_json(workspace.preprocessed / "nnUNetPlans.json")
    plans["original_median_shape_after_transp"][0] = 1
    save_json(plans, workspace.preprocessed / "nnUNetPlans.json")
    with pytest.raises(UsageError, match="Dataset996_Other holds 3D volumes, but Dataset998_Toy holds 2D images"):
        link(("996",))


def test_target_without_preprocessed_data(workspace, others):
    shutil.rmtree(workspace.preprocessed / "nnUNetPlans_3d_fullres")
    with pytest.raises(UsageError, match="preprocessed for no configuration.*nnUNetv2_preprocess -d 998"):
        link(("996",))


def test_unreadable_image_is_named_and_nothing_is_linked(workspace, others):
    image = workspace.root / "nnUNet_raw/Dataset996_Other/imagesTr/other996_001_0000.nii.gz"
    image.write_bytes(b"broken")
    with pytest.raises(UsageError, match="case other996_001 of Dataset996_Other cannot be preprocessed"):
        link(("996",))
    assert "non_target" not in load_json(workspace.preprocessed / "dataset.json")["nnunet_ext"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: None, None),
        (shutil.rmtree, "Dataset996_Other is not preprocessed with the plans of Dataset998_Toy for 3d_fullres"),
        (lambda folder: (folder / "other996_001.pkl").unlink(), "lacks 1 cases, e.g. other996_001"),
        (lambda folder: shutil.rmtree(folder.parent), "is not preprocessed with the plans"),
    ],
)
def test_unprepared_source_names_the_command(workspace, others, damage, message):
    (folder,) = link(("996",))["Dataset996_Other"]
    damage(folder)
    if message is None:
        assert sources(workspace, "non_target") == [PatchSource(folder, ("other996_000", "other996_001"))]
        return
    command = "nnunet_ext link 998 --non-target 996 -c 3d_fullres -p nnUNetPlans"
    with pytest.raises(UsageError, match=f"{message}.*run: {command}$"):
        sources(workspace, "non_target")
    with pytest.raises(UsageError, match="linked to no unlabeled data set; run: nnunet_ext link 998 --unlabeled ID"):
        sources(workspace, "unlabeled")
    link(("996",))
    assert len(sources(workspace, "non_target")) == 1


def test_changed_plans_and_changed_kind_are_noticed(workspace, others):
    link(("996",))
    plans = load_json(workspace.preprocessed / "nnUNetPlans.json")
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    dataset_json["nnunet_ext"]["unlabeled"] = [996]
    with pytest.raises(UsageError, match="was prepared with --non-target; run: nnunet_ext link 998 --unlabeled 996"):
        related_sources(dataset_json, "unlabeled", PlansManager(plans), "3d_fullres")
    plans["configurations"]["3d_fullres"]["spacing"][0] *= 2
    with pytest.raises(UsageError, match="preprocessed with other plans of Dataset998_Toy than these; run"):
        related_sources(dataset_json, "non_target", PlansManager(plans), "3d_fullres")


def test_hash_tells_preprocessing_apart_and_nothing_else(workspace):
    plans = load_json(workspace.preprocessed / "nnUNetPlans.json")

    def digest(**changes: Any) -> str:
        return preprocessing_hash(plans, {**plans["configurations"]["3d_fullres"], **changes})

    assert digest() == digest(patch_size=[1, 2, 3], batch_size=7)
    assert len({digest(), digest(spacing=[1, 1, 1]), digest(normalization_schemes=["ZScoreNormalization"])}) == 3
    plans["foreground_intensity_properties_per_channel"]["0"]["mean"] += 1
    assert digest() != preprocessing_hash(
        load_json(workspace.preprocessed / "nnUNetPlans.json"), plans["configurations"]["3d_fullres"]
    )


def test_raw_cases_of_a_data_set_that_lists_its_files(workspace, make_related):
    folder = make_related(996, 1)
    content = load_json(folder / "dataset.json")
    listed = {"images": ["../Dataset998_Toy/imagesTr/toy_000_0000.nii.gz"], "label": "labelsTr/other996_000.nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**content, "dataset": {"a.b": listed}}))
    (case,) = raw_cases("Dataset996_Other")
    assert case.name == "a.b"
    assert case.images[0].resolve() == workspace.raw / "imagesTr/toy_000_0000.nii.gz"
    assert case.label == folder / "labelsTr/other996_000.nii.gz"
    (folder / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "CT", "1": "PET"}}))
    with pytest.raises(UsageError, match="case other996_000 of Dataset996_Other has 1 images, .* 2 channels"):
        raw_cases("Dataset996_Other")
