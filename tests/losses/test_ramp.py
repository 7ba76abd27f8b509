import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.losses.ramp import RAMPS, ramp_up


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("gaussian", [0.0067, 0.0174, 0.0601, 0.2865, 0.7316, 0.9512, 1.0]),
        ("exp", [0.0067, 0.0111, 0.0235, 0.0821, 0.2865, 0.6065, 1.0]),
    ],
)
def test_values_of_both_forms(form: str, expected: list[float]) -> None:
    values = [ramp_up(progress, form) for progress in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    assert values == pytest.approx(expected, abs=1e-4)


@given(st.sampled_from(RAMPS), st.floats(0, 1), st.floats(0, 1))
def test_it_never_falls(form: str, first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0 < ramp_up(low, form) <= ramp_up(high, form) <= 1


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"progress=1.5 is outside"):
        ramp_up(1.5)
    with pytest.raises(ValueError, match="form='linear'"):
        ramp_up(0.5, "linear")
