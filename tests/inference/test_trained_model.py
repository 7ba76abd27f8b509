import json
import shutil

import pytest
import torch

from nnunet_ext.inference.trained_model import checkpoint_files, find_trainer, load_trained_model, torch_device
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture
def own_model(trained_model, tmp_path):
    return shutil.copytree(trained_model, tmp_path / trained_model.name)


def change_checkpoint(model, **changes):
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({k: v for k, v in (content | changes).items() if v is not None}, file)


def test_folds_are_loaded_and_the_network_has_the_first(trained_model):
    model = load_trained_model(trained_model, [1, 0])
    assert model.trainer_name == "nnUNetTrainer"
    assert model.mirroring_axes == (0, 1, 2)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(model.network.state_dict()[name], model.parameters[0][name])
    assert not torch.equal(model.parameters[0][name], model.parameters[1][name])
    assert isinstance(model.network(torch.zeros(1, 1, 16, 16, 16)), torch.Tensor)  # no deep supervision


def test_folds_are_found(own_model):
    (own_model / "fold_2").mkdir()
    shutil.copytree(own_model / "fold_0", own_model / "fold_all")
    assert [file.parent.name for file in checkpoint_files(own_model, None, "checkpoint_final.pth")] == [
        "fold_0",
        "fold_1",
    ]
    assert checkpoint_files(own_model, ["all"], "checkpoint_final.pth")[0].is_file()


def test_missing_folds_are_named_with_what_there_is(trained_model):
    with pytest.raises(UsageError) as error:
        load_trained_model(trained_model, (0, 1, 2, 3))
    message = str(error.value)
    assert "has no fold_2/checkpoint_final.pth, fold_3/checkpoint_final.pth" in message
    assert "it has: fold_0/checkpoint_final.pth, fold_1/checkpoint_final.pth" in message
    assert "-f and -chk" in message
    with pytest.raises(UsageError, match=r"has no checkpoint_best\.pth"):
        load_trained_model(trained_model, None, "checkpoint_best.pth")


def test_a_missing_model_folder_is_named_with_those_beside_it(trained_model):
    with pytest.raises(UsageError, match=f"UCITrainer__p__c does not exist.*{trained_model.name}"):
        load_trained_model(trained_model.with_name("UCITrainer__p__c"), (0,))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of what nnU-Net's search imports
def test_an_unknown_trainer_is_named_with_the_fix(own_model):
    change_checkpoint(own_model, trainer_name="TrainerFromElsewhere")
    with pytest.raises(UsageError, match=r"trainer TrainerFromElsewhere .*nnunet_ext env"):
        load_trained_model(own_model, (0,))


def test_our_trainers_are_found_without_an_environment_variable(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    assert find_trainer("BaselineTrainer").__module__ == "nnunet_ext.trainers.baseline"


def test_weights_that_do_not_fit_are_refused(own_model):
    plans = json.loads((own_model / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 6]
    (own_model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UsageError, match=r"checkpoint_final\.pth does not fit the network"):
        load_trained_model(own_model, (0,))


def test_other_files_are_refused(own_model):
    change_checkpoint(own_model, trainer_name=None, init_args=None)
    with pytest.raises(UsageError, match="it lacks trainer_name, init_args"):
        load_trained_model(own_model, (0,))
    change_checkpoint(own_model, trainer_name="nnUNetTrainer", init_args={"configuration": "2d"})
    with pytest.raises(UsageError, match=r"plans\.json does not belong to .*2d"):
        load_trained_model(own_model, (0,))
    (own_model / "dataset.json").unlink()
    with pytest.raises(UsageError, match=r"dataset\.json does not exist"):
        load_trained_model(own_model, (0,))


def test_devices(monkeypatch):
    assert torch_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="-device cuda is not available"):
        torch_device("cuda")
