import os
import pickle

import numpy as np
import pytest
import torch
from toy_model import stock_checkpoint, tiny_plans

from nnunet_ext.utilities.checkpoint import load_checkpoint
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture
def checkpoint():
    return stock_checkpoint(tiny_plans(), {"layer.weight": torch.arange(4.0)})


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_checkpoint_of_nnunet_is_read(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "checkpoint_final.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint_final.pth")
    assert loaded["logging"]["mean_fg_dice"] == [0.25, 0.5]
    assert isinstance(loaded["logging"]["mean_fg_dice"][0], np.float64)
    assert loaded["logging"]["history"].tolist() == [0, 1, 2]
    assert loaded["init_args"] == checkpoint["init_args"]
    assert torch.equal(loaded["network_weights"]["layer.weight"], torch.arange(4.0))


@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_pickled_by_numpy_1_and_2_are_read(tmp_path, core):
    torch.save({"ema": np.float32(0.5)}, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "c.pth").read_bytes()
    written = next(name for name in (b"numpy._core.multiarray", b"numpy.core.multiarray") if name in content)
    (tmp_path / "c.pth").write_bytes(content.replace(written, core))
    assert load_checkpoint(tmp_path / "c.pth") == {"ema": np.float32(0.5)}


@pytest.mark.parametrize("writer", ["zip", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(checkpoint, tmp_path, writer):
    trace, path = tmp_path / "ran", tmp_path / "checkpoint_final.pth"
    checkpoint["logging"] = Malicious(f"touch {trace}")
    if writer == "zip":
        torch.save(checkpoint, path)
    else:
        path.write_bytes(pickle.dumps({"logging": checkpoint["logging"]}, protocol=2))
    with pytest.raises(UsageError, match=r"needs (posix|nt)\.system.*--trust-checkpoint"):
        load_checkpoint(path)
    assert not trace.exists()


def test_a_trusted_checkpoint_is_read_whatever_it_holds(checkpoint, tmp_path):
    trace, path = tmp_path / "ran", tmp_path / "checkpoint_final.pth"
    checkpoint["logging"] = Malicious(f"touch {trace}")
    torch.save(checkpoint, path)
    assert load_checkpoint(path, trust=True)["current_epoch"] == 2
    assert trace.exists()


def test_arrays_of_objects_are_refused(tmp_path):
    torch.save({"a": np.array([{}], dtype=object)}, tmp_path / "c.pth")
    with pytest.raises(UsageError, match="ObjectDType"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("content", ["truncated", "garbage", "empty", "text"])
def test_a_damaged_file_is_named(checkpoint, tmp_path, content, trust):
    path = tmp_path / "checkpoint_final.pth"
    torch.save(checkpoint, path)
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "garbage": bytes(range(256)), "empty": b"", "text": b"hi"}[content]
    )
    with pytest.raises(UsageError, match=r"checkpoint_final\.pth cannot be read, it is truncated or no checkpoint"):
        load_checkpoint(path, trust=trust)


def test_absent_files_folders_and_other_contents_are_named(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(UsageError, match="does not exist"):
        load_checkpoint(tmp_path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")


def test_the_allow_list_ends_with_the_call(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"a": np.float64(1)}, tmp_path / "c.pth")
    load_checkpoint(tmp_path / "c.pth")
    assert set(torch.serialization.get_safe_globals()) == before
