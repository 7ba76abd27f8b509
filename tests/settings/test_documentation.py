import subprocess
import sys

from toy import REPOSITORY


def test_the_reference_page_is_up_to_date() -> None:
    program = REPOSITORY / "docs" / "reference" / "make_settings.py"
    table = subprocess.run(
        [sys.executable, program, "UCITrainer"],
        cwd=REPOSITORY,
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    page = (REPOSITORY / "docs" / "reference" / "uci.md").read_text()
    assert page.endswith(table), "run: python docs/reference/make_settings.py UCITrainer, and replace the table"
