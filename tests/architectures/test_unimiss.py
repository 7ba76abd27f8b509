from __future__ import annotations

import re

import pytest
import torch

from nnunet_ext.architectures.uci import UCINet
from nnunet_ext.architectures.uci_topology import Topology
from nnunet_ext.architectures.unimiss import load_unimiss_plus, renamed, resized_embedding, source_grid


def make_net(patch_size, xray_patch_size, seed):
    torch.manual_seed(seed)
    return UCINet(
        input_channels=1,
        num_classes=2,
        patch_size=patch_size,
        topology=Topology.paper(),
        xray_patch_size=xray_patch_size,
        num_xray_classes=3,
        features_per_stage=(4, 4, 8, 8, 16, 16),
        blocks_per_stage=(1, 1, 2, 1),
        heads_per_stage=(1, 1, 2, 2),
        num_prototypes=4,
    )


def source_spelling(name):
    """A parameter of the encoder as a UniMiSS+ file names it; the inner names of patch embeddings are made up."""
    branches = r"^encoder\.branches\.(ct|xray)\."
    dimensions = {"ct": "3D", "xray": "2D"}
    name = re.sub(r"^encoder\.stages\.shared\.(\d)\.", lambda m: f"block{int(m[1]) + 1}.", name)
    for own, other in (
        (r"patch_embeddings\.(\d)\.", "patch_embed{}{}.x"),
        (r"position_embeddings\.(\d)\.\w+", "pos_embed{}{}"),
    ):
        name = re.sub(branches + own, lambda m, other=other: other.format(dimensions[m[1]], int(m[2]) + 1), name)
    return renamed(name).replace("encoder.branches.xray.class_token", "cls_token")


@pytest.fixture
def source():
    """A network of UniMiSS+'s input sizes, as a published file would hold it."""
    net = make_net((16, 96, 96), (96, 96), seed=1)
    parameters = {name: p.detach().clone() for name, p in net.named_parameters() if name.startswith("encoder")}
    return {f"module.backbone.{source_spelling(n)}": p for n, p in parameters.items() if "warm_up" not in n}


def test_loads_by_name_and_resizes_position_embeddings(source, tmp_path):
    torch.save({"student": source, "epoch": 400}, tmp_path / "unimiss.pth")
    net = make_net((16, 64, 64), (64, 64), seed=2)
    report = load_unimiss_plus(net, tmp_path / "unimiss.pth", smallest_share=0.1)
    query = "encoder.stages.shared.2.1.attention.query.weight"
    assert torch.equal(net.get_parameter(query), source["module.backbone.block3.1.attn.q.weight"])
    conv = "encoder.branches.ct.patch_embeddings.1.0.0.weight"
    assert torch.equal(net.get_parameter(conv), source["module.backbone.patch_embed3D2.x0.0.weight"])
    assert len(report.resized) == 8 and all("position_embeddings" in name for name in report.resized)
    assert {name.split(".")[0] for name in report.skipped if "warm_up" not in name} == {
        "encoder", "decoder", "classifier",
    }  # fmt: skip
    assert all("decoder" not in name for name in report.matched)
    assert any("stem" in name for name in report.unused)
    assert 0.1 < report.share < 1


def test_equal_sizes_need_no_resizing(source):
    net = make_net((16, 96, 96), (96, 96), seed=2)
    assert load_unimiss_plus(net, source, smallest_share=0.1).resized == []


def test_further_parts(source):
    net = make_net((16, 96, 96), (96, 96), seed=2)
    stem = {"encoder.branches.ct.stem.": "encoder.branches.ct.stem."}
    report = load_unimiss_plus(net, source, parts=stem, smallest_share=0.1)
    assert "encoder.branches.ct.stem.0.0.weight" in report.matched


def test_refuses_other_weights_and_leaves_the_network():
    net = make_net((16, 64, 64), (64, 64), seed=2)
    before = {name: p.clone() for name, p in net.named_parameters()}
    with pytest.raises(ValueError, match=r"fill 0% of the network, less than 50%.*unused in the file: layer1"):
        load_unimiss_plus(net, {"layer1.weight": torch.zeros(3)})
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_resizing_keeps_coordinates():
    """A linear ramp along each axis stays one: the grid is the true one, not the flattened token axis."""
    net = make_net((16, 64, 64), (64, 64), seed=2)
    grid = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, n) for n in (8, 24, 24)), indexing="ij"), -1)
    tokens = torch.zeros(1, 8 * 24 * 24, 8)
    tokens[0, :, :3] = grid.flatten(0, 2)
    resized = resized_embedding(net, "encoder.branches.ct.position_embeddings.0.tokens", tokens)
    ramps = resized.view(8, 16, 16, 8)
    for axis, size in enumerate((8, 16, 16)):
        profile = ramps[..., axis].movedim(axis, 0).flatten(1)
        assert profile.std(1).max() < 1e-5
        assert torch.allclose(profile[1:-1, 0], torch.linspace(0, 1, size)[1:-1], atol=0.05)


@pytest.mark.parametrize(
    ("num_tokens", "expected", "grid"),
    [
        (4608, (8, 24, 24), (8, 24, 24)),
        (65536, (8, 24, 24), (16, 64, 64)),
        (36, (4, 3, 3), (4, 3, 3)),
        (3136, (24, 24), (56, 56)),
    ],
)
def test_source_grid(num_tokens, expected, grid):
    assert source_grid(num_tokens, expected) == grid


def test_no_grid():
    with pytest.raises(ValueError, match="50 tokens"):
        source_grid(50, (7, 7))
