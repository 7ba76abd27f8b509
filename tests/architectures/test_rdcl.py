"""The RDCL network: sizes, who learns from what, one entry for training and prediction."""

import copy

import pytest
import torch
from measuring import Storages
from torch import Tensor, nn
from toy_unet import unet

from nnunet_ext.architectures.rdcl import RDCLNet


def images(dimensions: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 1, *[16] * dimensions, generator=torch.Generator().manual_seed(seed))


def gradient_norms(net: RDCLNet) -> dict[str, float]:
    parts = {"general": net.general_encoder, "target": net.encoder, "decoder": net.decoder}
    norms = {
        name: sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None)
        for name, part in parts.items()
    }
    net.zero_grad(set_to_none=True)
    return norms


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_one_entry_for_training_and_prediction(dimensions: int, residual: bool) -> None:
    net = RDCLNet(unet(dimensions, residual), recompute_general=True)
    x, other = images(dimensions, 3), images(dimensions, 1, 1)
    logits, features = net(x, non_target=other, num_labeled=2)
    assert [list(level.shape) for level in logits] == [[2, 2, *[16] * dimensions], [2, 2, *[8] * dimensions]]
    bottleneck = [12, *[4] * dimensions]
    assert [list(f.shape) for f in features] == [[1, *bottleneck], [3, *bottleneck], [3, *bottleneck]]
    # One pass over both batches is what two passes would give.
    with torch.no_grad():
        assert torch.allclose(features.general_non_target, net(other, relations=True)[1].general_target, atol=1e-5)
        net.decoder.deep_supervision = False
        assert torch.allclose(net(x)[:2], logits[0], atol=1e-5)
    assert net(x, relations=True)[1].general_non_target is None


def test_strict_loading_with_deep_supervision_on_and_off() -> None:
    trained, predicting = RDCLNet(unet()), RDCLNet(unet(deep_supervision=False))
    predicting.load_state_dict(trained.state_dict())
    assert not [name for name in trained.state_dict() if name.startswith("decoder.encoder")]
    x = images(3)
    assert torch.equal(predicting(x), trained(x)[0]), "nothing depends on the mode but the other outputs"
    assert not torch.equal(
        trained.encoder.stages[0][0].convs[0].conv.weight, trained.general_encoder.stages[0][0].convs[0].conv.weight
    )
    assert torch.equal(copy.deepcopy(trained)(x)[0], trained(x)[0])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_segmentation_does_not_reach_the_general_encoder(residual: bool, recompute: bool) -> None:
    net = RDCLNet(unet(residual=residual), recompute_general=recompute)
    x, other = images(3), images(3, 2, 1)
    logits, features = net(x, non_target=other)
    sum(level.square().mean() for level in logits).backward(retain_graph=True)
    norms = gradient_norms(net)
    assert norms["general"] == 0 < min(norms["target"], norms["decoder"])
    (features.general_target - features.general_non_target).square().sum().backward(retain_graph=True)
    norms = gradient_norms(net)
    assert norms["target"] == norms["decoder"] == 0 < norms["general"]
    features.target.square().sum().backward()
    norms = gradient_norms(net)
    assert norms["general"] == norms["decoder"] == 0 < norms["target"]

    joint = RDCLNet(unet(residual=residual), joint_general=True, recompute_general=recompute)
    joint(x)[0].square().mean().backward()
    assert min(gradient_norms(joint).values()) > 0


@pytest.mark.parametrize("residual", [False, True])
def test_recomputation_changes_no_gradient(residual: bool) -> None:
    net = RDCLNet(unet(residual=residual))
    gradients: list[list[Tensor]] = []
    for recompute in (False, True):
        net.recompute_general = recompute
        features = net(images(3), non_target=images(3, 2, 1))[1]
        (features.general_target * features.general_non_target).sum().backward()
        gradients.append([p.grad.clone() for p in net.general_encoder.parameters() if p.grad is not None])
        net.zero_grad(set_to_none=True)
    assert len(gradients[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_compiled_in_one_piece() -> None:
    net = RDCLNet(unet(2), recompute_general=True)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    gradients = []
    for network in (net, compiled):
        net.zero_grad(set_to_none=True)
        logits, features = network(images(2, 3), non_target=images(2, 2, 1), relations=True, num_labeled=2)
        terms = [level.square().mean() for level in logits] + [feature.square().mean() for feature in features]
        torch.stack(terms).sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("residual", [False, True])
def test_the_general_encoder_keeps_less_than_half_for_the_backward_pass(residual: bool) -> None:
    net, kept = RDCLNet(unet(residual=residual)), {}
    x = images(3)
    for recompute in (False, True):
        net.recompute_general = recompute
        with Storages() as storages:
            features = net._general_features(x)
        kept[recompute] = storages.alive()
        assert features.requires_grad
    assert 0 < kept[True] <= 0.5 * kept[False]


def test_a_frozen_general_encoder_keeps_nothing() -> None:
    net = RDCLNet(unet(), recompute_general=True)
    net.general_encoder.requires_grad_(False)
    with Storages() as storages:
        features = net._general_features(images(3))
    assert storages.alive() == features.nbytes


def test_feature_maps_are_those_of_three_encoders_and_the_decoder() -> None:
    plain = unet()
    encoder = plain.encoder.compute_conv_feature_map_size((16, 16, 16))
    whole = plain.compute_conv_feature_map_size((16, 16, 16))
    assert RDCLNet(plain).compute_conv_feature_map_size((16, 16, 16)) == whole + 2 * encoder


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="Linear is not a U-Net of nnU-Net's"):
        RDCLNet(nn.Linear(2, 2))
