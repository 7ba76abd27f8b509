import re

from PIL import Image
from report_toy import make_model, make_result, parsed, visible_text

from nnunet_ext.evaluation.attention import AttentionMean, AttentionTable
from nnunet_ext.evaluation.report.page import write_report


def make_attention(folder, value=0.25, cases=("a", "b<c>"), drawn=()):
    means = [AttentionMean(case, name, value, float("nan")) for case in cases for name in ("T1", "<T2>")]
    AttentionTable([*means, AttentionMean("d", "T1", 0.75, 0.5)]).save(folder)
    for case in drawn:
        Image.new("RGB", (8, 6)).save(folder / f"{case}_attention.png")
    return folder


def report(inputs, tmp_path, **options):
    write_report(inputs, tmp_path / "report.html", **options)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def rows(html):
    table = html[html.index('class="attention"') :]
    found = re.findall("<tr>(.*?)</tr>", table[: table.index("</table>")], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]


def titles(html):
    return [title.strip() for title in re.findall(r'aria-label="Attention, ([^"]*)"', html)]


def test_the_section_of_a_model(tmp_path):
    folder = make_model(tmp_path, trainer="MAMLTrainer")
    make_attention(folder / "fold_0" / "attention", drawn=("a", "b<c>"))
    html = report([folder], tmp_path)
    tags = parsed(html)
    assert 'href="#attention"' in html and titles(html) == ["MAMLTrainer, fold_0"]
    assert rows(html)[1:] == [
        ["a", "0.250", "0.250", "–", "–"],
        ["b&lt;c&gt;", "0.250", "0.250", "–", "–"],
        ["d", "0.750", "–", "0.500", "–"],
        ["Mean", "0.417", "0.250", "0.500", "–"],
    ]
    assert [cell.split("<br>")[0] for cell in rows(html)[0][1:]] == ["T1", "&lt;T2&gt;"] * 2
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert [picture["alt"].split(",")[0] for picture in pictures] == ["A slice of T1", "A slice of T1"]
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in pictures)
    assert "low one does not mean that the modality is not used" in visible_text(html)


def test_without_the_file_there_is_no_section(tmp_path):
    folder = make_model(tmp_path, trainer="MAMLTrainer")
    (folder / "fold_0" / "attention").mkdir()
    html = report([folder], tmp_path)
    assert "#attention" not in html and 'class="attention"' not in html


def test_a_fold_without_takes_the_mean_over_folds(tmp_path):
    folder = make_model(tmp_path, trainer="MAMLTrainer")
    make_attention(folder / "attention", 0.5)
    assert titles(report([folder], tmp_path)) == ["MAMLTrainer, several folds"]
    make_attention(folder / "fold_0" / "attention")
    assert titles(report([folder], tmp_path)) == ["MAMLTrainer, fold_0"]


def test_beside_evaluations(tmp_path):
    for name in ("x", "y"):
        make_result({"a": 0.5}).save(tmp_path / name)
    make_attention(tmp_path / "x")
    make_attention(tmp_path / "y" / "attention")
    assert titles(report([tmp_path / "x"], tmp_path)) == ["x"]
    assert titles(report([f"M={tmp_path / 'x'}", f"M={tmp_path / 'y'}"], tmp_path)) == ["M, x", "M, y"]


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    folder = make_model(tmp_path, trainer="MAMLTrainer")
    make_attention(folder / "fold_0" / "attention")
    (folder / "fold_0" / "attention" / "attention.csv").write_text("what\nis this\n")
    html = report([folder], tmp_path)
    parsed(html)
    assert "MAMLTrainer, fold_0: Not shown: " in html and "is no table of attention" in html
    assert 'class="attention"' not in html


def test_of_many_figures_the_first_are_shown(tmp_path):
    folder = make_model(tmp_path, trainer="MAMLTrainer")
    cases = [f"case_{i}" for i in range(9)]
    make_attention(folder / "fold_0" / "attention", cases=cases, drawn=cases)
    (folder / "fold_0" / "attention" / "case_1_attention.png").write_bytes(b"0" * 2_000_001)
    html = report([folder], tmp_path)
    assert len(re.findall('<img src="data:image/png', html)) == 5  # of 6, one is too large
    assert "picture case_1_attention.png has 2.0 MB" in html
    assert "Figures of 3 more cases are in " in html and len(rows(html)) == 12
