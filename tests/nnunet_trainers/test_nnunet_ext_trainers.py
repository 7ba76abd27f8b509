import pickle
import sys

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from toy import SHIM

from nnunet_ext.nnunet_trainers.nnunet_ext_trainers import HOMES
from nnunet_ext.settings.registry import SETTINGS


@pytest.mark.parametrize("name", HOMES)
def test_nnunet_finds_the_class_and_it_pickles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(SHIM))
    found = recursive_find_trainer_class_by_name(name)
    assert found.__name__ == name and found.__module__ == HOMES[name]
    assert pickle.loads(pickle.dumps(found)) is found
    assert "nnunet_ext_trainers" not in sys.modules, "nnU-Net purges the shim, not the package"


def test_the_folder_holds_only_the_shim() -> None:
    assert [file.name for file in SHIM.iterdir() if file.name != "__pycache__"] == ["nnunet_ext_trainers.py"]


def test_an_unmet_import_of_one_system_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import nnunet_ext.nnunet_trainers.nnunet_ext_trainers as shim

    monkeypatch.setitem(shim.HOMES, "BrokenTrainer", "nnunet_ext.absent")
    assert shim.__getattr__("BaselineTrainer").__name__ == "BaselineTrainer"
    with pytest.raises(AttributeError):
        shim.__getattr__("Nothing")
    with pytest.raises(ModuleNotFoundError, match="absent"):
        shim.__getattr__("BrokenTrainer")


def test_every_trainer_has_settings() -> None:
    assert set(HOMES) == set(SETTINGS)
