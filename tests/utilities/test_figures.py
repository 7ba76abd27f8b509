from pathlib import Path

import pytest

from nnunet_ext.utilities.figures import saved_figure


def draw(path: Path) -> bytes:
    with saved_figure(path, 3, 2) as figure:
        axis = figure.subplots()
        axis.plot([1, 2], label="a")
        axis.set(xlabel="epoch", ylabel="loss")
        axis.legend()
    return path.read_bytes()


def test_the_hosts_style_does_not_reach_our_figures(tmp_path: Path) -> None:
    import matplotlib
    import seaborn

    plain = draw(tmp_path / "plain.png")
    with matplotlib.rc_context():
        seaborn.set_theme(font_scale=2.5)  # as nnU-Net's logger does after every epoch
        size = matplotlib.rcParams["font.size"]
        assert draw(tmp_path / "styled.png") == plain
        assert matplotlib.rcParams["font.size"] == size != matplotlib.rcParamsDefault["font.size"]


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), saved_figure(tmp_path / "a.png", 3, 2):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
