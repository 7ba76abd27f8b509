import os

import pytest

from nnunet_ext.utilities.environment import environment_variable


@pytest.mark.parametrize("before", [None, "before"])
def test_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    if before is None:
        monkeypatch.delenv("TOY", raising=False)
    else:
        monkeypatch.setenv("TOY", before)
    with pytest.raises(ZeroDivisionError), environment_variable("TOY", "inside"):
        assert os.environ["TOY"] == "inside"
        raise ZeroDivisionError
    assert os.environ.get("TOY") == before
