import csv

import numpy as np
import openpyxl
import pytest
from PIL import Image

from nnunet_ext.data.prompts import prompts_file, read_prompts
from nnunet_ext.dataset_conversion import monuseg_text, mosmed_plus, qata_cov19
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.datasets import write_relation
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

NAME = "Dataset401_Text"
SPLITS = {"Train": range(6), "Val": range(6, 8), "Test": range(8, 11)}


def write_table(file, names):
    book = openpyxl.Workbook()
    book.active.append(("Image", "Description"))
    for number, name in enumerate(names):
        book.active.append((name, f"Lesion {'left' if number % 2 else 'right'}."))
    book.save(file)


def write_pictures(folder, names, mask="{}.png", suffix=".png", colour=False, size=(40, 32)):
    """Noise, and as its mask the left half."""
    label = np.zeros(size[::-1], np.uint8)
    label[:, : size[0] // 2] = 255
    (folder / "img").mkdir(parents=True)
    (folder / "labelcol").mkdir()
    for seed, name in enumerate(names):
        shape = (*size[::-1], 3) if colour else size[::-1]
        values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(values).save(folder / "img" / f"{name}{suffix}")
        Image.fromarray(label).save(folder / "labelcol" / mask.format(name))


@pytest.fixture
def monuseg(tmp_path):
    """As LViT's MoNuSeg: a table in each folder, test images as TIFF, sheets that name the PNG."""
    source = tmp_path / "MoNuSeg"
    for split, numbers in SPLITS.items():
        names = [f"TCGA-21-{number:04d}-01Z" for number in numbers]
        folder = source / f"{split}_Folder"
        write_pictures(folder, names, suffix=".tif" if split == "Test" else ".png", colour=True)
        write_table(folder / f"{split}_text.xlsx", [f"{name}.png" for name in names])
    return source


@pytest.fixture
def qata(tmp_path):
    """As LViT's code wants QaTa-COV19: one table for Train and Val, names of masks."""
    source = tmp_path / "QaTa"
    for split, numbers in SPLITS.items():
        names = [f"covid_{number}" for number in numbers]
        write_pictures(source / f"{split}_Folder", names, mask="mask_{}.png", colour=True)
    write_table(source / "Train_Folder" / "Train_Val_text.xlsx", [f"mask_covid_{number}.png" for number in range(8)])
    write_table(source / "Test_Folder" / "Test_text.xlsx", [f"mask_covid_{number}.png" for number in SPLITS["Test"]])
    return source


def run(conversion, **options):
    return convert(conversion, NAME, processes=1, quiet=True, **options)


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_colour_images_masks_and_sentences(raw, monuseg):
    manifest = run(monuseg_text.plan(monuseg)).manifest
    image = read(raw / NAME / "imagesTr" / "TCGA-21-0006-01Z_0000.png")
    np.testing.assert_array_equal(image, read(monuseg / "Val_Folder" / "img" / "TCGA-21-0006-01Z.png"))
    label = read(raw / NAME / "labelsTr" / "TCGA-21-0006-01Z.png")
    assert image.shape == (32, 40, 3) and label.shape == (32, 40) and label.dtype == np.uint8
    assert (label[:, :20] == 1).all() and not label[:, 20:].any()
    assert manifest["cases"]["TCGA-21-0006-01Z"]["label_voxels"] == {"0": 640, "1": 640}
    assert manifest["cases"]["TCGA-21-0006-01Z"]["patient"] == "TCGA-21-0006"
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["channel_names"] == {"0": "R", "1": "G", "2": "B"} and dataset["numTraining"] == 8
    assert dataset["labels"] == {"background": 0, "nucleus": 1} and dataset["nnunet_ext"] == {"prompts": "prompts.json"}
    trained = [f"TCGA-21-{number:04d}-01Z" for number in range(8)]
    prompts = read_prompts(prompts_file(NAME), trained)
    assert not prompts.missing and prompts.sentence(trained[1]) == "Lesion left."
    tested = [f"TCGA-21-{number:04d}-01Z" for number in SPLITS["Test"]]
    assert not read_prompts(raw / NAME / "promptsTs.json", tested).missing
    for name in tested:
        assert (raw / NAME / "imagesTs" / f"{name}_0000.png").is_file()
        assert (raw / NAME / "labelsTs" / f"{name}.png").is_file()


def test_nnunet_reads_three_channels(raw, monuseg):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    run(monuseg_text.plan(monuseg))
    image, _ = NaturalImage2DIO().read_images([str(raw / NAME / "imagesTr" / "TCGA-21-0000-01Z_0000.png")])
    label, _ = NaturalImage2DIO().read_seg(str(raw / NAME / "labelsTr" / "TCGA-21-0000-01Z.png"))
    assert image.shape == (3, 1, 32, 40) and label.shape == (1, 1, 32, 40)
    original = read(monuseg / "Train_Folder" / "img" / "TCGA-21-0000-01Z.png")
    np.testing.assert_array_equal(image[:, 0].transpose(1, 2, 0), original)


@pytest.mark.parametrize(("module", "channel"), [(qata_cov19, "X-ray"), (mosmed_plus, "CT slice")])
def test_grey_images_and_masks_of_another_name(raw, qata, module, channel):
    conversion = module.plan(qata)
    manifest = run(conversion).manifest
    assert sorted(manifest["cases"]) == sorted(f"covid_{number}" for number in range(11))
    assert read(raw / NAME / "imagesTr" / "covid_3_0000.png").shape == (32, 40)
    assert read(raw / NAME / "labelsTr" / "covid_3.png").max() == 1
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["channel_names"] == {"0": channel} and dataset["labels"] == {"background": 0, "infection": 1}
    assert load_json(raw / NAME / "prompts.json")["covid_3"] == "Lesion left."
    assert len(load_json(raw / NAME / "prompts.json")) == 8 and len(load_json(raw / NAME / "promptsTs.json")) == 3
    assert conversion.summary(manifest["cases"]) == ["11 sentences, 2 of them different"]
    assert len(manifest["tables"]) == 2


def test_the_split_is_that_of_lvit(raw, qata):
    run(qata_cov19.plan(qata))
    assert load_json(raw / NAME / "splits_final.json") == [
        {"train": [f"covid_{number}" for number in range(6)], "val": ["covid_6", "covid_7"]}
    ]


def test_cross_validation_is_over_both_folders(raw, qata):
    outcome = run(qata_cov19.plan(qata, cross_validation=True))
    folds = load_json(raw / NAME / "splits_final.json")
    assert len(folds) == 5
    assert sorted(name for fold in folds for name in fold["val"]) == [f"covid_{number}" for number in range(8)]
    assert not any(set(fold["val"]) & set(fold["train"]) for fold in folds)
    assert outcome.manifest["options"]["cross_validation"] is True
    assert not run(qata_cov19.plan(qata, cross_validation=True)).written
    with pytest.raises(UsageError, match="differs"):
        run(qata_cov19.plan(qata))


def test_without_val_and_test(raw, tmp_path):
    write_pictures(tmp_path / "S" / "Train_Folder", ["a", "b", "c"])
    with (tmp_path / "S" / "Train_text.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("Image", "Description"), ("a.png", "Left."), ("c", "Right.")])
    conversion = mosmed_plus.plan(tmp_path / "S")
    manifest = run(conversion).manifest
    assert len(load_json(raw / NAME / "splits_final.json")) == 3
    assert load_json(raw / NAME / "prompts.json") == {"a": "Left.", "c": "Right."}
    assert not (raw / NAME / "promptsTs.json").exists()
    assert conversion.summary(manifest["cases"])[0].endswith("; 1 cases have none and get the default prompt")


def test_a_test_folder_without_masks(raw, qata):
    for file in (qata / "Test_Folder" / "labelcol").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="covid_8: no mask in labelcol"):
        run(qata_cov19.plan(qata))
    (qata / "Test_Folder" / "labelcol").rmdir()
    run(qata_cov19.plan(qata))
    assert (raw / NAME / "imagesTs" / "covid_8_0000.png").is_file() and not (raw / NAME / "labelsTs").exists()


def test_sentences_go_where_their_cases_go(raw, qata):
    run(qata_cov19.plan(qata), holdout=["covid_0"])
    assert "covid_0" not in load_json(raw / NAME / "prompts.json")
    assert load_json(raw / NAME / "promptsTs.json")["covid_0"] == "Lesion right."
    assert load_json(raw / NAME / "splits_final.json")[0]["train"] == [f"covid_{number}" for number in range(1, 6)]


def test_bad_cases(raw, qata):
    training = qata / "Train_Folder"
    (training / "labelcol" / "mask_covid_0.png").unlink()
    (training / "img" / "covid_1.png").unlink()
    (training / "img" / "covid_2.png").write_bytes(b"x")
    Image.new("L", (4, 4), 255).save(training / "labelcol" / "mask_covid_3.png")
    Image.new("RGB", (40, 32), (9, 9, 9)).save(training / "img" / "covid_4.png")
    Image.new("L", (40, 32), 100).save(training / "labelcol" / "mask_covid_5.png")
    with pytest.raises(UsageError, match="6 of 11 cases cannot be converted") as error:
        run(qata_cov19.plan(qata))
    reasons = (
        "covid_0: no mask in labelcol",
        "covid_1: a mask, but no image in img",
        "covid_2: unreadable image",
        r"covid_3: size mismatch: image (40, 32), mask (4, 4)",
        "covid_4: image is empty",
        "covid_5: mask is not binary",
    )
    assert all(reason in str(error.value) for reason in reasons)
    assert not (raw / NAME).exists()
    manifest = run(qata_cov19.plan(qata), skip_bad=True).manifest
    assert len(manifest["skipped"]) == 6
    assert sorted(load_json(raw / NAME / "prompts.json")) == ["covid_6", "covid_7"]


def test_sources_that_are_none(tmp_path, qata):
    with pytest.raises(UsageError, match=r"Train_Folder does not exist; expected Train_Folder.img"):
        qata_cov19.plan(tmp_path)
    write_table(qata / "Val_text.xlsx", ["covid_99.png"])
    with pytest.raises(UsageError, match=r"Val_text\.xlsx, .*1 of 12 names are none of the 11 cases: covid_99\.png"):
        qata_cov19.plan(qata)
    write_table(qata / "Val_text.xlsx", ["covid_6.png"])
    with pytest.raises(UsageError, match=r"named more than once: covid_6 \(covid_6\.png, mask_covid_6\.png\)"):
        qata_cov19.plan(qata)
    for table in qata.rglob("*.xlsx"):
        table.unlink()
    with pytest.raises(UsageError, match="holds no sentences: expected Train_Val_text.xlsx"):
        qata_cov19.plan(qata)
    for file in (qata / "Val_Folder" / "img").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="img holds no image"):
        qata_cov19.plan(qata)
    Image.new("L", (4, 4)).save(qata / "Val_Folder" / "img" / "a.png")
    Image.new("L", (4, 4)).save(qata / "Val_Folder" / "img" / "a.tif")
    with pytest.raises(UsageError, match=r"a\.png and .*a\.tif are one image; remove one"):
        qata_cov19.plan(qata)


def test_an_image_may_be_called_mask(raw, tmp_path):
    write_pictures(tmp_path / "S" / "Train_Folder", ["mask_a", "b"])
    write_table(tmp_path / "S" / "Train_text.xlsx", ["mask_a.png", "mask_b.png"])
    assert sorted(run(mosmed_plus.plan(tmp_path / "S")).manifest["cases"]) == ["b", "mask_a"]


def test_overwriting_keeps_prompts_that_were_linked(raw, challenge):
    from nnunet_ext.dataset_conversion.covid19_20 import plan

    source = challenge()
    run(plan(source))
    save_json({"a": "b"}, raw / NAME / "prompts.json")
    write_relation(NAME, "prompts", "prompts.json")
    run(plan(source), overwrite=True)
    assert load_json(prompts_file(NAME)) == {"a": "b"}
    (raw / NAME / "prompts.json").unlink()
    run(plan(source), overwrite=True)


def test_overwriting_writes_a_converters_sentences_anew(raw, qata):
    run(qata_cov19.plan(qata))
    save_json({"a": "b"}, raw / NAME / "prompts.json")
    run(qata_cov19.plan(qata), overwrite=True)
    assert len(load_json(raw / NAME / "prompts.json")) == 8


@pytest.mark.real_data
def test_real_sample(raw, real_data):
    if not (real_data / "monuseg_text").is_dir():
        pytest.skip("no real sample")
    conversion = monuseg_text.plan(real_data / "monuseg_text")
    manifest = run(conversion).manifest
    splits = [entry["split"] for entry in manifest["cases"].values()]
    assert splits.count("train") == 24 and splits.count("val") == 6 and not manifest["skipped"]
    assert len({entry["patient"] for entry in manifest["cases"].values()}) == 30
    foreground = [entry["label_voxels"]["1"] / np.prod(entry["shape"]) for entry in manifest["cases"].values()]
    assert 0.2 < np.mean(foreground) < 0.3
    prompts = read_prompts(prompts_file(NAME), manifest["cases"])
    assert not prompts.missing
    assert prompts.sentence("TCGA-21-5786-01Z-00-DX1") == "The nuclei density in the upper right is high."
    assert conversion.summary(manifest["cases"]) == ["30 sentences, 11 of them different"]
