import numpy as np
import pytest
from PIL import Image

from nnunet_ext.evaluation.attention_figure import Panel, choose_slice, draw_attention, panels_file


def panels(shape, names=("CT", "T1")):
    rng = np.random.default_rng(0)
    return [
        Panel(name, rng.normal(size=shape).astype(np.float32), rng.random(shape, np.float32), name == "CT")
        for name in names
    ]


def test_the_slice_with_the_most_foreground_across_the_coarsest_axis():
    mask = np.zeros((4, 5, 6), bool)
    mask[1, 1:3, 1], mask[3, :, 4] = True, True
    assert choose_slice(mask, (3, 1, 1)) == ((0, 3), ", slice 4 of 4, where the predicted foreground is largest")
    assert choose_slice(mask, (1, 1, 1))[0] == (0, 3)
    assert choose_slice(mask, (1, 1, 3))[0] == (2, 4)
    assert choose_slice(mask & False, (1, 3, 1)) == ((1, 2), ", slice 3 of 5, the middle, without foreground")
    assert choose_slice(mask[0], (1, 1)) == ((0, 0), "")


@pytest.mark.parametrize("filled", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("shape", "spacing"), [((6, 20, 24), (5, 1, 1)), ((12, 9, 3), (1, 1, 4)), ((20, 30), (1, 1))])
def test_figures_of_volumes_and_images(tmp_path, shape, spacing, filled):
    mask = np.random.default_rng(1).random(shape) < filled
    path = panels_file(tmp_path / "a.b")
    assert path.name == "a.b_attention.png"
    draw_attention(path, "a.b", panels(shape, ("CT", "T$_1", "<b>")), mask, spacing)
    with Image.open(path) as picture:
        assert picture.width > 900 and picture.height > 300
    assert [file.name for file in tmp_path.iterdir()] == ["a.b_attention.png"]


def test_one_colour_scale_and_the_maps_below_their_images(tmp_path):
    """Constant maps: the lower panels have the colours of 0, 0.5 and 1 of viridis, whatever the other maps hold."""
    volume = np.zeros((1, 40, 40), np.float32)
    drawn = [Panel(str(value), volume, volume + value, False) for value in (0.0, 0.5, 1.0)]
    draw_attention(tmp_path / "a.png", "a", drawn, volume > 0, (1, 1, 1))
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    for colour in ((68, 1, 84), (33, 145, 140), (253, 231, 37)):
        near = (np.abs(pixels.astype(int) - colour).max(1) <= 2).sum()
        assert near > 50_000
