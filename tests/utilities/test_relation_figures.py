from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_relations import make_matrices

from nnunet_ext.utilities import relation_figures
from nnunet_ext.utilities.figures import saved_figure
from nnunet_ext.utilities.relation_figures import draw_course, draw_epochs, draw_matrices
from nnunet_ext.utilities.relation_record import GENERAL, NON_TARGET, TARGET


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is saved."""
    seen: list[Any] = []

    @contextmanager
    def recorded(*arguments: Any, **options: Any) -> Iterator[Any]:
        with saved_figure(*arguments, **options) as figure:
            yield figure
            seen.append(figure)

    monkeypatch.setattr(relation_figures, "saved_figure", recorded)
    return seen


def panels(figure: Any) -> list[Any]:
    """The axes that show a matrix."""
    return [axis for axis in figure.axes if axis.get_images() and axis.get_visible()]


def test_a_row_per_epoch_and_one_colour_scale_per_kind(figures: list[Any], tmp_path: Path) -> None:
    kept = {epoch: make_matrices(epoch) for epoch in (0, 9, 99)}
    kept[99][TARGET] = 2 * kept[99][TARGET]
    draw_epochs(tmp_path / "a.png", kept)
    shown = panels(figures[0])
    assert [axis.get_ylabel() for axis in shown[::5]] == ["epoch 0", "epoch 9", "epoch 99"]
    assert [axis.get_title().replace("\n", " ") for axis in shown[:5]] == [
        "R_G(non-target)",
        "R_G(target)",
        "R_T(target)",
        "|R_G(non-target) - R_G(target)|",
        "|R_G(target) - R_T(target)|",
    ]
    images = [axis.get_images()[0] for axis in shown]
    for row, matrices in enumerate(kept.values()):
        non_target, general, target = (matrices[name] for name in (NON_TARGET, GENERAL, TARGET))
        expected = (non_target, general, target, abs(non_target - general), abs(general - target))
        for image, values in zip(images[5 * row : 5 * row + 5], expected, strict=True):
            assert np.array_equal(image.get_array(), values)
    for kind in (range(3), range(3, 5)):
        limits = {images[5 * row + column].get_clim() for row in range(3) for column in kind}
        assert len(limits) == 1
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1200 and image.height > 800


def test_three_columns_without_non_target_images(figures: list[Any], tmp_path: Path) -> None:
    kept = {0: {name: matrix for name, matrix in make_matrices(0).items() if name != NON_TARGET}}
    draw_epochs(tmp_path / "a.png", kept)
    draw_matrices(tmp_path / "b.png", kept[0])
    assert [len(panels(figure)) for figure in figures] == [3, 3]


def test_a_diverged_training_is_drawn(figures: list[Any], tmp_path: Path) -> None:
    kept = {0: make_matrices(0), 1: {name: np.full((6, 6), np.nan) for name in (NON_TARGET, GENERAL, TARGET)}}
    draw_epochs(tmp_path / "a.png", kept)
    assert np.isfinite([axis.get_images()[0].get_clim() for axis in panels(figures[0])]).all()
    draw_matrices(tmp_path / "b.png", kept[1])
    assert (tmp_path / "b.png").is_file()


def test_the_course_shows_every_epoch(figures: list[Any], tmp_path: Path) -> None:
    general, target = [0.5, float("nan"), 0.3], [0.1, 0.2, 0.3]
    series = {"loss/general": [9.0] * 3, "relation/general": general, "relation/target": target}
    draw_course(tmp_path / "a.png", {**series, "relation/general_rank": [1.0, 0.9, 0.8], "relation/weight": [0, 1, 2]})
    lines = {line.get_label(): list(line.get_ydata()) for axis in figures[0].axes for line in axis.get_lines()}
    assert lines["d(R_G(target), R_T(target))"] == target and lines["rank"] == [1.0, 0.9, 0.8]
    assert np.array_equal(lines["d(R_G(non-target), R_G(target))"], general, equal_nan=True)
    assert len(lines) == 4


def test_a_course_of_one_epoch_without_non_target_images(figures: list[Any], tmp_path: Path) -> None:
    draw_course(tmp_path / "a.png", {"relation/target": [0.4], "relation/general_rank": [0.5]})
    labels = {line.get_label() for axis in figures[0].axes for line in axis.get_lines() if len(line.get_ydata())}
    assert labels == {"d(R_G(target), R_T(target))", "rank"}
