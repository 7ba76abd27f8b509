import dataclasses
import json
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.settings.base import Settings, spelled
from nnunet_ext.settings.registry import SETTINGS, settings_class
from nnunet_ext.settings.uci import UCISettings
from nnunet_ext.utilities.errors import UsageError


@pytest.mark.parametrize("trainer", SETTINGS)
def test_every_setting_is_documented_and_survives_json(trainer: str) -> None:
    settings = settings_class(trainer)()
    assert settings.trainer == trainer
    assert all(field.metadata["help"] for field in dataclasses.fields(settings))
    assert type(settings).from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.changed() == {}


def test_plans_override_only_their_own_trainer() -> None:
    plans = {"nnunet_ext": {"UCITrainer": {"num_prototypes": 128}, "BaselineTrainer": {"num_epochs": 3}}}
    settings = UCISettings.from_plans(plans)
    assert (settings.num_prototypes, settings.num_epochs) == (128, 1000)
    assert settings.changed() == {"num_prototypes": 128}
    assert UCISettings.from_plans({}) == UCISettings()


def test_unknown_key_names_the_near_one() -> None:
    with pytest.raises(UsageError, match="no setting 'num_prototype'; did you mean num_prototypes"):
        UCISettings.from_dict({"num_prototype": 3})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prototype_momentum": 1.5}, r"prototype_momentum=1.5 is outside the range \[0, 1\]"),
        ({"num_prototypes": 0}, r"num_prototypes=0 is outside the range \[1, 65536\]"),
        ({"num_prototypes": 2.5}, "num_prototypes=2.5 is not of type int"),
        ({"num_epochs": True}, "num_epochs=True is not of type int"),
        ({"initial_lr": "fast"}, "initial_lr='fast' is not of type float"),
        ({"initial_lr": float("nan")}, "initial_lr=nan is not of type float"),
        ({"topology": "mine"}, "topology='mine' is not one of plans, paper"),
        ({"features_per_stage": [8, 8]}, "must have 6 elements"),
        ({"features_per_stage": [8, 8, 8, 0, 8, 8]}, r"outside the range \[1, inf\]"),
        ({"xray_patch_size": [64]}, r"not of type tuple\[int, int\]"),
        ({"features_per_stage": [8, 8, 8, 9, 8, 8]}, "2 heads do not divide the 9 channels"),
    ],
)
def test_a_bad_value_is_named_with_its_range(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        UCISettings.from_dict(overrides)


def test_paper_is_the_literal_reading() -> None:
    paper = UCISettings.paper()
    assert paper.topology == "paper" and paper.shared_bank and paper.kc_include_cls and paper.prototype_init == "first"
    assert (paper.num_xray_classes, paper.xray_task) == (14, "multilabel")
    assert UCISettings.paper(3).xray_task == "multiclass"


@given(st.floats(allow_nan=True) | st.integers() | st.text() | st.none() | st.lists(st.integers(), max_size=3))
def test_a_value_is_taken_as_it_is_or_refused(value: object) -> None:
    @dataclasses.dataclass(frozen=True)
    class Example(Settings):
        trainer: ClassVar[str] = "ExampleTrainer"

    try:
        settings = Example.from_dict({"weight_decay": value})
    except UsageError as error:
        assert "ExampleTrainer setting weight_decay=" in str(error)
    else:
        assert settings.weight_decay == value and 0 <= settings.weight_decay <= 1


def test_unknown_trainer() -> None:
    with pytest.raises(UsageError, match="-tr Foo is not a trainer of nnunet_ext; choose one of UCITrainer"):
        settings_class("Foo")


def test_long_values_are_cut_for_a_reader() -> None:
    assert spelled(["left", 1, None]) == '["left", 1, null]'
    cut = spelled(["word"] * 1000)
    assert len(cut) < 250 and cut.endswith(" ... (1000 elements)")
