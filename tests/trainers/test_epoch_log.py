import math
from pathlib import Path

import pandas as pd
from PIL import Image

from nnunet_ext.trainers.epoch_log import (
    duration,
    epoch_summary,
    log_value,
    mean_losses,
    plot_named_series,
    write_progress_csv,
)


def example_logging(epochs: int) -> dict[str, list[float]]:
    keys = ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs")
    logging = {key: [0.5] * epochs for key in keys}
    logging["epoch_start_timestamps"] = [100.0 * epoch for epoch in range(epochs)]
    logging["epoch_end_timestamps"] = [100.0 * epoch + 60 for epoch in range(epochs)]
    return logging


def test_a_series_that_starts_late_is_filled_with_nan() -> None:
    logging: dict[str, list[float]] = {}
    log_value(logging, "loss/xray", 1.0, 2)
    assert [math.isnan(value) for value in logging["loss/xray"]] == [True, True, False]
    log_value(logging, "loss/xray", 2.0, 2)
    assert logging["loss/xray"][2:] == [2.0], "an epoch that is logged again is replaced"


def test_a_loss_that_only_some_steps_have_is_averaged_over_those() -> None:
    outputs = [{"loss": 3.0, "loss/a": 1.0, "loss/b": 2.0}, {"loss": 3.0, "loss/a": 3.0}]
    assert mean_losses(outputs) == {"loss/a": 2.0, "loss/b": 2.0}
    assert mean_losses([]) == {}


def test_csv_has_one_row_per_finished_epoch(tmp_path: Path) -> None:
    logging = example_logging(3)
    logging["loss/ct"] = [3.0, 2.0, 1.0]
    write_progress_csv(logging, tmp_path / "progress.csv")
    table = pd.read_csv(tmp_path / "progress.csv")
    assert list(table.epoch) == [0, 1, 2] and list(table["loss/ct"]) == [3, 2, 1] and set(table.epoch_seconds) == {60}


def test_figure_has_a_panel_per_group_and_none_without_series(tmp_path: Path) -> None:
    logging = example_logging(2)
    plot_named_series(logging, tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()
    logging |= {"loss/ct": [1.0, 0.5], "loss/xray": [2.0, 1.0]}
    plot_named_series(logging, tmp_path / "one.png")
    logging["prototypes/ct_used"] = [3.0, 4.0]
    plot_named_series(logging, tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as first, Image.open(tmp_path / "two.png") as second:
        one, two = first.size, second.size
    assert two[0] == one[0] and abs(two[1] - 2 * one[1]) <= 2


def test_summary_tells_the_time_that_is_left() -> None:
    logging = example_logging(4) | {"loss/ct": [1.0] * 4, "loss/xray": [2.0] * 4, "prototypes/ct_used": [3.0] * 4}
    assert epoch_summary(logging, 10) == (
        "Epoch 4/10: ct 1.0000 xray 2.0000 val 0.5000 pseudo Dice 0.5000 60.0 s, 0:06:00 left"
    )
    assert duration(3723.4) == "1:02:03"
