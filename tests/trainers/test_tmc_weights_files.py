"""Files of weights that parts of TMC start from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy_tmc import tiny_tmc

from nnunet_ext.trainers.tmc_weights_files import load_text, load_vision
from nnunet_ext.utilities.errors import UsageError


def contiguous(module):
    return {name: value.clone().contiguous() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", ["safetensors", "pytorch"])
def test_both_formats_from_file_or_folder(tmp_path: Path, kind: str) -> None:
    source, target = tiny_tmc(seed=1), tiny_tmc(seed=2)
    name = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    for part, folder, load in (("swin", "vision", load_vision), ("text", "language", load_text)):
        (tmp_path / folder).mkdir()
        weights = contiguous(getattr(source, part))
        save = save_file if kind == "safetensors" else torch.save
        save(weights, tmp_path / folder / name)
        for path in (tmp_path / folder, tmp_path / folder / name):
            report = load(getattr(target, part), str(path))
            assert len(report.loaded) == len(weights) and not report.skipped
        for key, value in getattr(target, part).state_dict().items():
            assert torch.equal(value, weights[key]), key


def test_errors_name_setting_and_file(tmp_path: Path) -> None:
    net = tiny_tmc()
    with pytest.raises(UsageError, match=r"swin_weights=.*holds neither of model.safetensors, pytorch_model.bin"):
        load_vision(net.swin, str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(UsageError, match="bert_weights: .*model.safetensors cannot be read"):
        load_text(net.text, str(tmp_path))
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="bert_weights=.*other.pth.*none of the 1 weights fits"):
        load_text(net.text, str(tmp_path / "other.pth"))
    torch.save({"code": Path("object")}, tmp_path / "code.pth")
    with pytest.raises(UsageError, match="which is not a plain value and could run code; convert the file"):
        load_vision(net.swin, str(tmp_path / "code.pth"))
