"""Settings of MAMLTrainer: what a modality is, and what cannot be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.settings.maml import MAMLSettings, absence_probabilities, channel_names, modality_channels
from nnunet_ext.utilities.errors import UsageError

MRI = {"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}}


def test_one_modality_per_channel() -> None:
    channels = modality_channels(MAMLSettings(), MRI)
    assert list(channels.items()) == [("T1", (0,)), ("T1ce", (1,)), ("T2", (2,)), ("FLAIR", (3,))]


def test_names_that_nnunet_needs_twice_are_numbered() -> None:
    assert channel_names({"channel_names": {"0": "CT", "1": "PET", "2": "CT"}}) == ["CT_0", "PET", "CT_2"]
    phases = {"channel_names": {"0": "CT", "1": "CT"}, "nnunet_ext": {"modality_names": ["AP", "VP"]}}
    assert channel_names(phases) == ["AP", "VP"]
    assert channel_names({"modality": {"0": "CT", "1": "PET"}}) == ["CT", "PET"], "nnU-Net's old name for it"
    many = {str(i): f"phase {i}" for i in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)}
    assert channel_names({"channel_names": many})[10] == "phase 10", "numbers, not text"


@given(st.permutations([("late", [0, 3]), ("early", [2]), ("native", [1])]))
def test_groups_keep_their_order_in_any_json(items: list[tuple[str, list[int]]]) -> None:
    settings = MAMLSettings(modalities=dict(items))
    expected = [("late", (0, 3)), ("native", (1,)), ("early", (2,))]
    assert list(modality_channels(settings, MRI).items()) == expected
    assert list(MAMLSettings.from_dict({"modalities": settings.to_dict()["modalities"]}).modalities) == [
        name for name, _ in expected
    ]


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"a": [0, 1], "b": [1, 2, 3]}, "has channel 1 more than once"),
        ({"a": [0, 0], "b": [1, 2, 3]}, "has channel 0 more than once"),
        ({"a": [0, 1], "b": [2, 4, 3]}, "has channel 4 which the data set does not have"),
        ({"a": [-1, 1], "b": [0, 2, 3]}, "has channel -1 which the data set does not have"),
        ({"a": [0], "b": [2, 3]}, "has channel 1 in no modality; give each of .* 1 \\(T1ce\\)"),
        ({"all": [0, 1, 2, 3]}, r"needs at least two modalities, but there is one \(all\) of 4 channels"),
    ],
)
def test_groups_that_do_not_fit_the_channels(modalities: dict[str, list[int]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        modality_channels(MAMLSettings(modalities=modalities), MRI)


def test_a_single_channel_is_sent_elsewhere() -> None:
    message = r"two modalities, but there is one \(CT\) of 1 channel: 0 \(CT\); train with -tr nnUNetTrainer, or .*UCI"
    with pytest.raises(UsageError, match=message):
        modality_channels(MAMLSettings(), {"channel_names": {"0": "CT"}})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"modalities": [[0], [1]]}, r"modalities=\[\[0\], \[1\]\] is not of type"),
        ({"modalities": {"a": ["T1"]}}, "is not an object of names and lists of channel numbers"),
        ({"modalities": {"a": []}}, "is not an object of names and lists"),
        ({"modalities": {"a": 0}}, "is not an object of names and lists"),
        ({"modalities": {"a": [True]}}, "is not an object of names and lists"),
        ({"modalities": {"": [0]}}, "is not an object of names and lists"),
        ({"modality_probabilities": {"T1": 1}}, r"is not an object of names and numbers in \[0, 0.95\]"),
        ({"modality_probabilities": {"T1": "0.5"}}, "is not an object of names and numbers"),
        ({"modality_dropout": 1.0}, r"modality_dropout=1.0 is outside the range \[0, 0.95\]"),
        ({"ma_second_kernel": 2}, "ma_second_kernel=2 must be odd"),
        ({"ma_second_kernel": 5}, r"ma_second_kernel=5 is outside the range \[1, 3\]"),
        ({"ablation": "no_ma"}, "ablation='no_ma' is not one of none, ensemble, ma_only"),
        ({"lambda_intra": -1}, "lambda_intra=-1.0 is outside the range|lambda_intra=-1 is outside the range"),
    ],
)
def test_settings_that_cannot_be(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MAMLSettings.from_dict(overrides)


def test_probabilities_of_absence() -> None:
    settings = MAMLSettings(modality_dropout=0.25, modality_probabilities={"T2": 0.5, "T1": 0})
    assert absence_probabilities(settings, ["T1", "T1ce", "T2"]) == (0.0, 0.25, 0.5)
    with pytest.raises(UsageError, match="modality_probabilities has 'T2', which is none of the modalities T1, PET"):
        absence_probabilities(settings, ["T1", "PET"])


@pytest.mark.parametrize(
    ("ablation", "joint", "intra"), [("none", 1.0, 0.25), ("ma_only", 1.0, 0.0), ("ensemble", 0.0, 1.0)]
)
def test_weights_of_the_loss(ablation: str, joint: float, intra: float) -> None:
    settings = MAMLSettings(ablation=ablation, lambda_intra=0.25)
    assert (settings.joint_weight, settings.intra_weight) == (joint, intra)


def test_paper_is_the_text() -> None:
    literal = {"ma_second_kernel": 1, "optimizer": "adam", "initial_lr": 3e-4, "num_epochs": 600}
    assert MAMLSettings.literal() == literal and MAMLSettings.paper().lambda_intra == 0.5
