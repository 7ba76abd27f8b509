import numpy as np
import pytest
from PIL import Image

from nnunet_ext.dataset_conversion.base import BadCaseError
from nnunet_ext.dataset_conversion.covid_semiseg import binary_label, colour_label, grey_label, patient, plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset201_COVIDSemiSeg"
VOLUMES = (
    "Data-1_coronacases_org_001",
    "Data-1_coronacases_org_002",
    "Data-1_radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm",
    "Data-1_radiopaedia_org_covid-19-pneumonia-10_85902_3-dcm",
)
RED, GREEN = (128, 0, 0), (0, 128, 0)


def write_slice(folder, name, seed, suffix=".jpg", size=(40, 32)):
    """A smooth picture, which JPEG keeps, and its mask: the bright half."""
    values = np.linspace(20 + seed, 220, size[0] * size[1]).astype(np.uint8).reshape(size[::-1])
    (folder / "Imgs").mkdir(parents=True, exist_ok=True)
    (folder / "GT").mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / "Imgs" / f"{name}{suffix}")
    return values > 128


@pytest.fixture
def sample(tmp_path):
    """Six slices to train (of two sizes), two to test, two slices of each of four volumes without labels."""
    root = tmp_path / "COVID-SemiSeg" / "Dataset"
    for part, names in (("TrainingSet/{}-Train{}", range(6)), ("TestingSet/{}-Test{}", (18, 21))):
        for kind in ("LungInfection", "MultiClassInfection"):
            below = "/Doctor-label" if kind == "LungInfection" and "Train" in part else ""
            folder = root / part.format(kind, below)
            for name in names:
                lesion = write_slice(folder, name, name, size=(40, 32) if name % 2 else (30, 32))
                if kind == "LungInfection":
                    mask = Image.fromarray(np.where(lesion, 255, 0).astype(np.uint8))
                else:
                    colours = np.zeros((*lesion.shape, 3), np.uint8)
                    colours[lesion] = RED
                    colours[-1] = GREEN
                    mask = Image.fromarray(colours)
                mask.save(folder / "GT" / f"{name}.png")
    unlabelled = root / "TrainingSet" / "LungInfection-Train" / "Pseudo-label"
    for volume in VOLUMES:
        for number in (3, 12):
            write_slice(unlabelled, f"{volume}_{number}", number)
    return root


def read(path):
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_slices_and_masks_become_png(raw, sample, above):
    source = (sample, *sample.parents)[above]
    manifest = convert(plan(source), NAME, processes=1, quiet=True).manifest
    splits = [entry["split"] for entry in manifest["cases"].values()]
    assert splits.count("train") == 6 and splits.count("test") == 2
    image = read(raw / NAME / "imagesTr" / "slice_005_0000.png")
    label = read(raw / NAME / "labelsTr" / "slice_005.png")
    with Image.open(sample / "TrainingSet/LungInfection-Train/Doctor-label/Imgs/5.jpg") as jpg:
        np.testing.assert_array_equal(image, np.asarray(jpg))
    assert image.shape == label.shape == (32, 40) and np.unique(label).tolist() == [0, 1]
    assert manifest["cases"]["slice_005"]["label_voxels"]["1"] == int(label.sum())
    assert read(raw / NAME / "labelsTs" / "slice_018.png").max() == 1
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["labels"] == {"background": 0, "infection": 1}
    assert dataset["file_ending"] == ".png" and dataset["numTraining"] == 6
    assert dataset["channel_names"] == {"0": "CT slice"} and "nnunet_ext" not in dataset
    folds = load_json(raw / NAME / "splits_final.json")
    assert sorted(name for fold in folds for name in fold["val"]) == [f"slice_{i:03d}" for i in range(6)]


def test_multiclass(raw, sample):
    manifest = convert(plan(sample, task="multiclass"), NAME, processes=1, quiet=True).manifest
    label = read(raw / NAME / "labelsTr" / "slice_003.png")
    assert (label[-1] == 2).all() and np.unique(label[:-1]).tolist() == [0, 1]
    assert manifest["cases"]["slice_003"]["label_voxels"]["2"] == 40
    assert load_json(raw / NAME / "dataset.json")["labels"]["consolidation"] == 2


def test_without_a_test_set(raw, sample):
    conversion = plan(sample.rename(sample.parent / "moved"))
    assert len(conversion.cases) == 8
    for file in sorted((conversion.source / "TestingSet").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (conversion.source / "TestingSet").rmdir()
    assert len(convert(plan(conversion.source), NAME, processes=1, quiet=True).manifest["cases"]) == 6
    assert not (raw / NAME / "imagesTs").exists()


def test_unlabelled_slices_are_grouped_by_patient_and_say_so(raw, sample):
    pseudo_label = sample / "TrainingSet/LungInfection-Train/Pseudo-label/GT"
    Image.new("L", (40, 32), 255).save(pseudo_label / f"{VOLUMES[0]}_3.png")
    conversion = plan(sample, unlabeled=True)
    assert conversion.name == "COVIDSemiSegUnlabeled"
    convert(conversion, NAME, processes=1, quiet=True)
    labels = sorted((raw / NAME / "labelsTr").iterdir())
    assert len(labels) == 8 and all(not read(file).any() for file in labels)
    assert load_json(raw / NAME / "dataset.json")["nnunet_ext"] == {"labels": "none"}
    for fold in load_json(raw / NAME / "splits_final.json"):
        assert not {patient(name) for name in fold["train"]} & {patient(name) for name in fold["val"]}
    assert len(load_json(raw / NAME / "splits_final.json")) == 3  # the two volumes of radiopaedia_10 are one patient


def test_mark_of_missing_labels_does_not_outlive_an_overwrite(raw, sample):
    convert(plan(sample, unlabeled=True), NAME, processes=1, quiet=True)
    convert(plan(sample), NAME, processes=1, quiet=True, overwrite=True)
    assert "nnunet_ext" not in load_json(raw / NAME / "dataset.json")


def test_coronacases_can_be_brought_to_the_lung_window(raw, sample):
    conversion = plan(sample, unlabeled=True, coronacases_window=(-1000, 1800))
    manifest = convert(conversion, NAME, processes=1, quiet=True).manifest
    changed, same = (f"{VOLUMES[i]}_3" for i in (0, 2))
    assert manifest["cases"][changed]["intensity"] == "from the window -1000..1800 to -1250..250"
    assert "intensity" not in manifest["cases"][same]
    # 95 is -1000 + 2800 * 95 / 255 = 43.1 HU, which is 219.8 of the lung window
    source = sample / "TrainingSet/LungInfection-Train/Pseudo-label/Imgs"
    with Image.open(source / f"{changed}.jpg") as jpg:
        before = np.asarray(jpg)
    after = read(raw / NAME / "imagesTr" / f"{changed}_0000.png")
    assert set(after[before == 95].tolist()) == {220} and (before == 95).any()


def test_slice_and_mask_without_the_other(sample):
    folder = sample / "TrainingSet" / "LungInfection-Train" / "Doctor-label"
    (folder / "GT" / "1.png").unlink()
    (folder / "Imgs" / "2.jpg").unlink()
    problems = {case.name: case.problem for case in plan(sample).cases if case.problem}
    assert problems == {"slice_001": "no mask in GT", "slice_002": "a mask, but no slice in Imgs"}


def test_bad_files(raw, sample):
    folder = sample / "TrainingSet" / "LungInfection-Train" / "Doctor-label"
    (folder / "Imgs" / "0.jpg").write_bytes((folder / "Imgs" / "0.jpg").read_bytes()[:200])
    Image.new("L", (9, 9)).save(folder / "GT" / "1.png")
    Image.new("L", (30, 32), 100).save(folder / "GT" / "2.png")
    manifest = convert(plan(sample), NAME, processes=1, quiet=True, skip_bad=True).manifest
    reasons = {name: entry["reason"] for name, entry in manifest["skipped"].items()}
    assert list(reasons) == ["slice_000", "slice_001", "slice_002"]
    assert reasons["slice_000"].startswith("unreadable image")
    assert reasons["slice_001"] == "size mismatch: image (40, 32), mask (9, 9) (columns, rows)"
    assert reasons["slice_002"] == "mask is not binary: 100% of its pixels are neither black nor white"
    assert not list((raw / NAME).rglob("*slice_000*"))


def test_masks():
    blurred = np.repeat(np.array([[0, 127, 128, 255]], np.uint8), [18, 1, 1, 30], axis=1)
    assert binary_label(blurred).sum() == 31  # 2 of 50 pixels are between
    assert binary_label(np.array([[0, 1]], np.uint8)).tolist() == [[0, 1]]
    assert grey_label(np.array([[0, 38, 75]], np.uint8)).tolist() == [[0, 1, 2]]
    assert grey_label(np.array([[0, 1, 2]], np.uint8)).tolist() == [[0, 1, 2]]
    assert colour_label(np.array([[(0, 0, 0), RED, (0, 255, 0)]], np.uint8)).tolist() == [[0, 1, 2]]
    with pytest.raises(BadCaseError, match=r"label out of range: \[40\]"):
        grey_label(np.array([[40]], np.uint8))
    with pytest.raises(BadCaseError, match="mask has 1 pixels that are neither"):
        colour_label(np.array([[RED, (128, 128, 0)]], np.uint8))


def test_wrong_options_and_layout(sample, tmp_path):
    with pytest.raises(UsageError, match="--task lungs is not one of infection, multiclass"):
        plan(sample, task="lungs")
    with pytest.raises(UsageError, match="give --unlabeled as well"):
        plan(sample, coronacases_window=(-1000, 1800))
    with pytest.raises(UsageError, match="--coronacases-window 5 5"):
        plan(sample, unlabeled=True, coronacases_window=(5, 5))
    with pytest.raises(UsageError, match="TrainingSet does not exist"):
        plan(tmp_path / "nowhere")
    folder = sample / "TrainingSet/LungInfection-Train/Doctor-label/Imgs"
    (folder / "01.jpg").write_bytes((folder / "1.jpg").read_bytes())
    with pytest.raises(UsageError, match=r"01.jpg and .*1.jpg are one slice"):
        plan(sample)


def test_patients():
    names = [f"{volume}_7" for volume in VOLUMES]
    assert [patient(name) for name in names] == [
        *("coronacases_001", "coronacases_002", "radiopaedia_10", "radiopaedia_10"),
    ]
    assert patient("other_volume_7") == "other_volume" and patient("7") == "7"


@pytest.mark.real_data
def test_real_sample(raw, real_data):
    manifest = convert(plan(real_data / "covid_semiseg"), NAME, processes=1, quiet=True).manifest
    assert len(manifest["cases"]) == 50 and not manifest["skipped"]
    foreground = [entry["label_voxels"] for entry in manifest["cases"].values()]
    assert np.mean([count["1"] / (count["0"] + count["1"]) for count in foreground]) == pytest.approx(0.145, abs=0.001)
    conversion = plan(real_data / "covid_semiseg", unlabeled=True)
    assert len(conversion.cases) == 800 and len({case.patient for case in conversion.cases}) == 18
    assert len(load_json(raw / NAME / "splits_final.json")) == 5
