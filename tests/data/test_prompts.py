import csv
import json
import sys
import zipfile

import openpyxl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.data.prompts import Prompts, link_prompts, match_prompts, prompts_file, read_prompts
from nnunet_ext.data.tokenizer import Tokenizer, build_vocabulary
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

CASES = ("a", "b", "c.1", "mask_d")
ROWS = [("a.png", " The left\n lung. "), ("mask_b.TIF", "Nothing."), ("c.1_0000.nii.gz", "the  right")]
NAME = "Dataset005_Toy"


def write(file, rows):
    header = ("Image", "Description")
    if file.suffix == ".json":
        file.write_text(json.dumps(dict(rows)), encoding="utf-8")
    elif file.suffix == ".csv":
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([header, *rows])
    else:
        book = openpyxl.Workbook()
        for row in [header, *rows]:
            book.active.append(row)
        book.save(file)
    return file


@pytest.fixture(params=[".json", ".csv", ".xlsx"])
def suffix(request):
    return request.param


@pytest.fixture
def file(tmp_path, suffix):
    return tmp_path / f"prompts{suffix}"


def test_names_become_cases(file):
    prompts = read_prompts(write(file, ROWS), CASES, default=" no  sentence")
    assert dict(prompts.sentences) == {"a": "The left lung.", "b": "Nothing.", "c.1": "the right"}
    assert prompts.missing == ("mask_d",)
    assert prompts.sentence("a") == "The left lung." and prompts.sentence("mask_d") == "no sentence"


@pytest.mark.parametrize("name", ["mask_1", "1", "mask_1_0000.png", "1.nii.gz", "mask_1.JPEG", "1_0000.bmp"])
def test_what_is_stripped(name):
    assert match_prompts([(name, "x")], ["1"], "f").sentences == {"1": "x"}


def test_a_case_that_is_called_so_comes_first():
    rows = [("mask_1", "mask"), ("1", "image"), ("x.png", "dotted"), ("y_0000", "first")]
    prompts = match_prompts(rows, ["mask_1", "1", "x.png", "y_0000"], "f")
    assert dict(prompts.sentences) == {"1": "image", "mask_1": "mask", "x.png": "dotted", "y_0000": "first"}
    assert match_prompts([("mask_1_0000.png", "mask")], ["mask_1", "1"], "f").sentences == {"mask_1": "mask"}


def test_the_hash_is_of_sentences_and_cases(tmp_path):
    digests = {read_prompts(write(tmp_path / f"p{kind}", ROWS), CASES).sha256 for kind in (".json", ".csv", ".xlsx")}
    assert len(digests) == 1
    rows = [(name.split(".png")[0], " ".join(sentence.split())) for name, sentence in reversed(ROWS)]
    assert match_prompts(rows, (*CASES, "more"), "f", default="other").sha256 in digests
    assert match_prompts([*ROWS[:2], ("c.1", "the left")], CASES, "f").sha256 not in digests
    assert match_prompts([*ROWS[:2], ("mask_d", "the right")], CASES, "f").sha256 not in digests
    composed, decomposed = (match_prompts([("a", text)], CASES, "f").sha256 for text in ("caf\u00e9", "cafe\u0301"))
    assert composed == decomposed
    assert Prompts({"b": "x", "a": "y"}, ()).sha256 == Prompts({"a": "y", "b": "x"}, ()).sha256


@given(st.dictionaries(st.text(min_size=1), st.text().filter(str.strip), min_size=1))
def test_whatever_is_written_is_found(rows):
    prompts = match_prompts(list(rows.items()), rows, "f")
    assert prompts.sentences.keys() == rows.keys() and not prompts.missing
    assert all(prompts.sentences[case].split() for case in rows)


def test_unknown_cases_are_listed_and_cut(file):
    rows = [("a", "x"), *((f"z{number}.png", "x") for number in range(7))]
    wrong = (
        r"7 of 8 names are none of the 4 cases: z0\.png, z1\.png, .*z4\.png and 2 more \(cases: a, b, c\.1, mask_d\)"
    )
    with pytest.raises(UsageError, match=wrong):
        read_prompts(write(file, rows), CASES)


def test_one_case_twice(file):
    with pytest.raises(UsageError, match=r"1 cases are named more than once: a \(a, a_0000\.png\); keep one of each"):
        read_prompts(write(file, [("a", "x"), ("a_0000.png", "x"), ("b", "y")]), CASES)


def test_one_name_twice_in_json(tmp_path):
    file = tmp_path / "p.json"
    file.write_text('{"a": "x", "a": "y"}')
    with pytest.raises(UsageError, match=r"p\.json: 1 cases are named more than once: a \(a, a\)"):
        read_prompts(file, CASES)


def test_no_text(file):
    with pytest.raises(UsageError, match=r"2 names have no text: b\.png, c\.1; remove them, and these cases get the"):
        read_prompts(write(file, [("a", "x"), ("c.1", " \n"), ("b.png", "")]), CASES)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_not_utf8(file):
    file.write_bytes(write(file, [("a", "x"), ("b", "cafX")]).read_bytes().replace(b"cafX", "café".encode("latin-1")))
    with pytest.raises(UsageError, match=r"is not UTF-8 \(line \d: byte b'\\xe9'\); save it as UTF-8"):
        read_prompts(file, CASES)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_a_byte_order_mark(file):
    file.write_bytes(b"\xef\xbb\xbf" + write(file, ROWS).read_bytes())
    assert len(read_prompts(file, CASES).sentences) == 3


def test_columns(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("Image;Description\na;x\n")
    with pytest.raises(
        UsageError, match=r"no column Image and no column Description; its first row is: Image;Descript"
    ):
        read_prompts(file, CASES)
    file.write_text("Image,text\na,x\n")
    with pytest.raises(UsageError, match=r"has no column Description; .* Image, text; name the columns Image and"):
        read_prompts(file, CASES)
    file.write_text("")
    with pytest.raises(UsageError, match="its first row is: empty"):
        read_prompts(file, CASES)
    file.write_text("n, Description ,Image\n1,x,a\n\n2,,\n3,y\n")
    with pytest.raises(UsageError, match=r"p\.csv, row 5: 'y' has no Image"):
        read_prompts(file, CASES)
    file.write_text("n, Description ,Image\n1,x,a\n\n2,,\n3\n")
    assert read_prompts(file, CASES).sentences == {"a": "x"}


def test_a_sheet_of_numbers(tmp_path):
    assert read_prompts(write(tmp_path / "p.xlsx", [(7, "x"), (None, None)]), ["7"]).sentences == {"7": "x"}


@pytest.mark.parametrize("content", ['["a"]', '"a"', '{"a": 1}', '{"a": {"b": "c"}}', '[["a", "b"]]', "null"])
def test_json_that_is_no_object_of_texts(tmp_path, content):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UsageError, match=r"p\.json must be one object of texts"):
        read_prompts(tmp_path / "p.json", CASES)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"p\.json does not exist"):
        read_prompts(tmp_path / "p.json", CASES)
    with pytest.raises(UsageError, match=r"p\.txt: prompts are read from \.json, \.csv, \.xlsx"):
        read_prompts(tmp_path / "p.txt", CASES)
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(UsageError, match="is not valid JSON"):
        read_prompts(tmp_path / "p.json", CASES)
    (tmp_path / "p.xlsx").write_text("Image,Description")
    with pytest.raises(UsageError, match=r"p\.xlsx is not a readable \.xlsx"):
        read_prompts(tmp_path / "p.xlsx", CASES)
    with zipfile.ZipFile(tmp_path / "p.xlsx", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(UsageError, match=r"p\.xlsx is not a readable \.xlsx"):
        read_prompts(tmp_path / "p.xlsx", CASES)


def test_without_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "p.xlsx", ROWS)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UsageError, match=r"p\.xlsx needs openpyxl .*; run: pip install 'nnunet_ext\[text\]'"):
        read_prompts(tmp_path / "p.xlsx", CASES)


def test_rows_of_token_ids():
    prompts = match_prompts([("a", "left lung"), ("c.1", "left lung")], CASES, "f", default="lung")
    vocabulary = build_vocabulary([*prompts.sentences.values()])
    rows = prompts.encode(Tokenizer(vocabulary, 5))
    left, lung = vocabulary.index("left"), vocabulary.index("lung")
    assert rows.keys() == set(CASES) and rows["a"] is rows["c.1"]
    assert rows["a"].tolist() == [2, left, lung, 3, 0] and rows["b"].tolist() == [2, lung, 3, 0, 0]
    assert rows["a"].dtype == torch.int64


def test_sentences_that_are_too_long_are_counted():
    prompts = match_prompts([("a", "x"), ("b", "x y z."), ("c.1", "x y z, " * 2), ("mask_d", "x y z.")], CASES, "f")
    tokenizer = Tokenizer(build_vocabulary(["x y z.,"]), 5)
    wrong = r"3 of 4 sentences have more than token_length=5 .* the longest, c\.1, has 10: .* set token_length=10"
    with pytest.raises(UsageError, match=wrong):
        prompts.encode(tokenizer)
    with pytest.raises(UsageError, match=r"'x y z\.' has 6 tokens"):
        match_prompts([], CASES, "f", default="x y z.").encode(tokenizer)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Raw and preprocessed folder of one data set."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        save_json({"name": "toy", "nnunet_ext": {"xray": [7]}}, tmp_path / variable / NAME / "dataset.json")
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return tmp_path / "nnUNet_raw" / NAME, tmp_path / "nnUNet_preprocessed" / NAME


def test_the_relation(folders):
    with pytest.raises(UsageError, match=f"{NAME} has no prompts; run: nnunet_ext link 5 --prompts FILE"):
        prompts_file(5)
    prompts = match_prompts(ROWS, CASES, "f")
    files = link_prompts(5, prompts)
    assert files == [folder / "prompts.json" for folder in folders]
    for folder in folders:
        assert load_json(folder / "dataset.json") == {
            "name": "toy",
            "nnunet_ext": {"xray": [7], "prompts": "prompts.json"},
        }
        assert read_prompts(folder / "prompts.json", CASES) == prompts
    assert prompts_file(NAME) == files[0]
    files[0].unlink()  # the raw data may be gone once a data set is preprocessed
    assert prompts_file(5) == files[1]
    files[1].unlink()
    with pytest.raises(UsageError, match=r"no such file, but dataset\.json of Dataset005_Toy names it; bring it back"):
        prompts_file(5)


def test_a_relation_to_a_folder(folders):
    save_json({"nnunet_ext": {"prompts": "texts/p.json"}}, folders[1] / "dataset.json")
    save_json({}, folders[1] / "texts" / "p.json")
    assert prompts_file(5) == folders[1] / "texts" / "p.json"
