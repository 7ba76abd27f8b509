import csv
import math

import pytest

from nnunet_ext.evaluation.attention import AttentionMean, AttentionTable, find_attention
from nnunet_ext.utilities.errors import UsageError

NAN = math.nan
MEANS = [
    AttentionMean("a", "T2", 0.25, 1 / 3),
    AttentionMean("a", "FLAIR", 0.5, 0.125),
    AttentionMean("b", "T1", 0.75, NAN),
    AttentionMean("b", "T2", 0.5, NAN),
    AttentionMean("b", "FLAIR", 0.1, NAN),
]


def test_the_file_has_a_line_per_case_and_modality_unrounded(tmp_path):
    path = AttentionTable(MEANS).save(tmp_path / "new")
    assert path == tmp_path / "new" / "attention.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"case": "a", "modality": "T2", "mean": "0.25", "mean_foreground": repr(1 / 3)}
    assert rows[2] == {"case": "b", "modality": "T1", "mean": "0.75", "mean_foreground": ""}
    loaded = AttentionTable.load(tmp_path / "new")
    assert [(m.case, m.modality, m.image) for m in loaded.means] == [(m.case, m.modality, m.image) for m in MEANS]
    assert loaded.means[0].foreground == 1 / 3 and math.isnan(loaded.means[2].foreground)


def test_cells_and_means():
    table = AttentionTable(MEANS)
    assert table.modalities == ["T1", "T2", "FLAIR"]  # the model's order, though the first case lacks one
    assert (table.cell("a", "T2", "image"), table.cell("a", "T2", "foreground")) == ("0.250", "0.333")
    assert table.cell("a", "T1", "image") == table.cell("b", "T1", "foreground") == "–"
    assert (table.mean_cell("T2", "image"), table.mean_cell("T2", "foreground")) == ("0.375", "0.333")
    assert table.mean_cell("T1", "foreground") == "–"


def test_text():
    assert AttentionTable(MEANS).text() == (
        "mean A_i over the image\n"
        "case     T1     T2  FLAIR\n"
        "a         –  0.250  0.500\n"
        "b     0.750  0.500  0.100\n"
        "mean  0.750  0.375  0.300\n"
        "\n"
        "mean A_i over the predicted foreground\n"
        "case  T1     T2  FLAIR\n"
        "a      –  0.333  0.125\n"
        "b      –      –      –\n"
        "mean   –  0.333  0.125"
    )


def test_text_of_many_cases_is_cut_with_a_note():
    table = AttentionTable([AttentionMean(f"case_{i:02d}", "T1", i / 100, NAN) for i in range(23)])
    text = table.text()
    assert "case_19" in text and "case_20" not in text
    assert text.endswith("and 3 more cases, which count in the means: attention.csv has all")
    assert "mean     0.110" in text
    assert "more cases" not in AttentionTable(table.means[:20]).text()


@pytest.mark.parametrize(
    "content", ["", "case,modality,mean\na,T1,0.5\n", "case,modality,mean,mean_foreground\na,T1,much,\n"]
)
def test_another_file_of_that_name_is_named(tmp_path, content):
    (tmp_path / "attention.csv").write_text(content)
    with pytest.raises(UsageError, match=r"attention\.csv is no table of attention .*run nnunet_ext explain"):
        AttentionTable.load(tmp_path)


def test_where_it_is_found(tmp_path):
    assert find_attention(tmp_path) is None
    AttentionTable(MEANS).save(tmp_path / "attention")
    assert find_attention(tmp_path) == tmp_path / "attention"
    AttentionTable(MEANS).save(tmp_path)
    assert find_attention(tmp_path) == tmp_path
