import subprocess
import sys

import pytest
from toy import REPOSITORY


@pytest.mark.parametrize(
    ("trainer", "page"),
    [("UCITrainer", "uci.md"), ("RDCLTrainer", "rdcl.md"), ("MAMLTrainer", "maml.md"), ("TMCTrainer", "tmc.md")],
)
def test_the_reference_page_is_up_to_date(trainer: str, page: str) -> None:
    program = REPOSITORY / "docs" / "reference" / "make_settings.py"
    table = subprocess.run(
        [sys.executable, program, trainer],
        cwd=REPOSITORY,
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    content = (REPOSITORY / "docs" / "reference" / page).read_text()
    assert content.endswith(table), f"run: python docs/reference/make_settings.py {trainer}, and replace the table"
