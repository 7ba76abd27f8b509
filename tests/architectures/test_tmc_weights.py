"""Public weights: every spelling of their names, and shapes that are not ours."""

import re

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from toy_tmc import sentence, tiny_tmc
from transformers import BertConfig, BertForMaskedLM

from nnunet_ext.architectures.tmc_swin import SwinStages
from nnunet_ext.architectures.tmc_weights import load_bert_weights, load_local_weights, load_swin_weights


def swin(channels: int = 3, window: int = 2) -> SwinStages:
    torch.manual_seed(0)
    return SwinStages(channels, width=8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=window)


def timms() -> dict[str, Tensor]:
    torch.manual_seed(1)
    net = SwinTransformer(64, embed_dim=8, window_size=2, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), num_classes=3)
    return net.state_dict()


def bert_file() -> dict[str, Tensor]:
    """Names as in the first BERT files, more positions than ours, a head."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 4}
    weights = BertForMaskedLM(BertConfig(vocab_size=12, max_position_embeddings=64, **sizes)).state_dict()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {re.sub("|".join(old), lambda m: old[m[0]], name): tensor for name, tensor in weights.items()}


def features(net: SwinStages, x: Tensor) -> Tensor:
    for stage in range(4):
        x = net(stage, x)
    return x


def test_old_names_of_swin_give_the_same_features() -> None:
    new = timms()
    old = {
        re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): tensor
        for name, tensor in new.items()
    }
    assert "layers.0.downsample.norm.weight" in old and "layers.3.downsample.norm.weight" not in old
    x = torch.randn(2, 3, 64, 64)
    outputs = []
    for weights in (new, old, {"model": old}, {"state_dict": new, "epoch": 3}):
        net = swin()
        report = load_swin_weights(net, weights)
        assert report.left == [] and {name.split(".")[0] for name in report.skipped} == {"norm", "head"}
        outputs.append(features(net, x))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_grey_image_is_seen_as_before(channels: int) -> None:
    colour, other = swin(), swin(channels)
    load_swin_weights(colour, timms())
    report = load_swin_weights(other, timms())
    assert report.adapted == ["patch_embed.proj.weight"]
    grey = torch.randn(2, 1, 64, 64)
    expected = features(colour, grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features(other, grey.expand(-1, channels, -1, -1)), expected, atol=1e-5, rtol=1e-4)


def test_another_window() -> None:
    net, weights = swin(window=4), timms()
    report = load_swin_weights(net, weights)
    tables = [name for name in weights if name.endswith("relative_position_bias_table")]
    assert report.adapted == tables and report.left == []
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    small, large = weights[table].view(3, 3, 1), net.state_dict()[table].view(7, 7, 1)
    torch.testing.assert_close(large[::6, ::6], small[::2, ::2], atol=1e-5, rtol=1e-4), "corners are corners"
    torch.testing.assert_close(large[3, 3], small[1, 1], atol=1e-5, rtol=1e-4)


def test_bert_file_of_the_first_kind() -> None:
    text = tiny_tmc().text
    assert text is not None
    weights = bert_file()
    report = load_bert_weights(text, weights)
    assert report.left == [] and all(name.startswith("cls.") for name in report.skipped)
    assert report.adapted == ["embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"]
    positions = weights["bert.embeddings.position_embeddings.weight"]
    assert torch.equal(text.embeddings.position_embeddings.weight, positions[:32])
    assert torch.equal(text.layers[3].output.LayerNorm.bias, weights["bert.encoder.layer.3.output.LayerNorm.beta"])


def test_loading_makes_cached_sentences_void() -> None:
    text = tiny_tmc(frozen_layers=1).text
    assert text is not None
    before = text.encode_frozen(sentence(4))
    load_bert_weights(text, bert_file())
    assert not torch.allclose(before, text.encode_frozen(sentence(4)))


def test_what_does_not_fit_is_told_and_left() -> None:
    net, weights = swin(), timms()
    start = net.state_dict()["layers.1.blocks.0.mlp.fc1.weight"].clone()
    weights["layers.1.blocks.0.mlp.fc1.weight"] = torch.ones(3, 3)
    weights["patch_embed.proj.weight"] = torch.ones(8, 3, 2, 2)
    report = load_swin_weights(net, weights)
    assert report.left == ["patch_embed.proj.weight", "layers.1.blocks.0.mlp.fc1.weight"]
    assert set(report.left) <= set(report.skipped)
    assert torch.equal(net.state_dict()["layers.1.blocks.0.mlp.fc1.weight"], start)
    assert "left at their random start: patch_embed.proj.weight, layers.1" in str(report)
    assert str(report).startswith(f"{len(report.loaded)} weights loaded; adapted: none; skipped in the file: ")


def test_nothing_that_fits() -> None:
    net = swin()
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"none of the 1 weights fits SwinStages; there are, e.g., conv1.weight, and"):
        load_swin_weights(net, {"conv1.weight": torch.ones(2)})
    assert all(torch.equal(tensor, start[name]) for name, tensor in net.state_dict().items())


def test_a_prefix() -> None:
    net, weights = swin(), timms()
    report = load_local_weights(net, {f"swin.{name}": tensor for name, tensor in weights.items()}, prefix="swin.")
    assert report.left == [] and all(name.startswith("swin.") for name in report.skipped)
    assert torch.equal(net.patch_embed.proj.weight, weights["patch_embed.proj.weight"])
