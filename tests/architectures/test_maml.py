"""The MAML network: the paper's sizes, attention against its naive form, missing modalities, memory."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn
from toy_unet import unet

from nnunet_ext.architectures.cpu_layout import channels_last
from nnunet_ext.architectures.maml import MAMLNet, mean_prediction
from nnunet_ext.architectures.modality_attention import ModalityAttention

CLASSES = 3


def maml(num_modalities: int = 2, dimensions: int = 3, residual: bool = False, **options: Any) -> MAMLNet:
    torch.manual_seed(0)
    streams = [unet(dimensions, residual, classes=CLASSES) for _ in range(num_modalities)]
    return MAMLNet(streams, [[i] for i in range(num_modalities)], **options)


def images(channels: int = 2, dimensions: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *[16] * dimensions, generator=torch.Generator().manual_seed(1))


# ---- the paper's network ------------------------------------------------------------------------------------------


def test_parameters_of_the_papers_network() -> None:
    """The authors' network for the liver (62,611,104 parameters on nnU-Net v1's blocks), term by term."""
    with torch.device("meta"):
        streams = [
            PlainConvUNet(
                1,
                6,
                [32, 64, 128, 256, 320, 320],
                nn.Conv3d,
                3,
                [1, 2, 2, 2, 2, 2],
                2,
                2,
                2,
                conv_bias=True,
                norm_op=nn.InstanceNorm3d,
                norm_op_kwargs={"affine": True},
                nonlin=nn.LeakyReLU,
            )
            for _ in range(2)
        ]
        net = MAMLNet(streams, [[0], [1]])
    v1_stream, v1_total = 31_194_784, 62_611_104
    transposed_biases, head_biases, joint_bias = 320 + 256 + 128 + 64 + 32, 5 * 2, 2
    assert count(net.streams[0]) == v1_stream + transposed_biases + head_biases
    assert net.attention is not None and net.head is not None
    assert count(net.attention.fusion) == 2 * 32 * 32 * 27 + 32 == 55_328
    assert count(net.attention.gates[0]) == 55_328 + 2 * 32 + (32 * 32 * 27 + 32) == 83_072
    assert count(net.head) == 64 + joint_bias
    assert count(net) == v1_total + 2 * (transposed_biases + head_biases) + joint_bias == 62_612_726


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_second_convolution_of_the_text() -> None:
    attention = ModalityAttention(nn.Conv3d, 2, 32, second_kernel=1)
    first, second = 64 * 32 * 27 + 32 + 2 * 32, 32 * 32 + 32 + 2 * 32
    assert count(attention.gates[0]) == first + second
    gate = attention.gates[0](*(torch.randn(1, 32, 4, 4, 4) for _ in range(2)))
    assert 0.4 < gate.min() < gate.max() <= 1, "a leaky ReLU in front of the sigmoid: no gate closes"


def test_weights_start_as_nnunets_and_as_pytorchs() -> None:
    """The host's rule sets every bias to 0, PyTorch's none."""
    streams = [unet() for _ in range(2)]
    for stream in streams:
        stream.apply(PlainConvUNet.initialize)
    net = MAMLNet(streams, [[0], [1]])
    assert all(not p.any() for name, p in net.streams.named_parameters() if name.endswith("conv.bias"))
    biases = [module.bias for module in net.attention.modules() if isinstance(module, nn.Conv3d)]
    assert len(biases) == 5 and all(bool(bias.all()) for bias in (*biases, net.head.bias))


# ---- attention ----------------------------------------------------------------------------------------------------


def naive_attention(module: ModalityAttention, features: list[Tensor], present: list[int]) -> tuple[Tensor, Tensor]:
    """Eq. 1 and 2 as printed, with concatenated tensors; an absent modality is features of zeros that are not summed.
    Returns F_att and the gates, averaged over channels."""
    modalities, zeros = range(len(module.gates)), torch.zeros_like(features[0])
    fused = module.fusion(torch.cat([features[present.index(i)] if i in present else zeros for i in modalities], 1))
    terms, gates = [], []
    for i, feature in zip(present, features, strict=True):
        gate: Any = module.gates[i]
        x = gate.first(torch.cat([feature, fused], 1))
        norm = gate.first_activation[0]
        x = nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias)
        x = gate.second(nn.functional.leaky_relu_(x, 0.01))
        if gate.second.kernel_size[0] == 1:
            norm = gate.second_activation[0]
            x = nn.functional.leaky_relu_(nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias), 0.01)
        a = torch.sigmoid(x)
        terms.append(a * feature)
        gates.append(a.mean(1))
    return torch.stack(terms).sum(0), torch.stack(gates, 1)


def random_attention(num_modalities: int, dimensions: int = 3, **options: Any) -> ModalityAttention:
    torch.manual_seed(2)
    module = ModalityAttention(nn.Conv3d if dimensions == 3 else nn.Conv2d, num_modalities, 4, **options)
    for name, parameter in module.named_parameters():
        if "activation" in name:
            nn.init.normal_(parameter, 1, 0.5)  # norms that do something
    return module


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2], [1]])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("second_kernel", [1, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_attention_equals_its_naive_form(
    present: list[int], dimensions: int, second_kernel: int, recompute: bool
) -> None:
    module = random_attention(3, dimensions, second_kernel=second_kernel, recompute=recompute)
    results = []
    for attend in (
        lambda features: module(features, present, return_gates=True),
        lambda features: naive_attention(module, features, present),
    ):
        generator = torch.Generator().manual_seed(3)
        size = (2, 4, *(6, 5, 7)[:dimensions])
        features = [torch.randn(size, generator=generator).requires_grad_() for _ in present]
        attended, gates = attend(features)
        module.zero_grad(set_to_none=True)
        (attended * torch.randn(attended.shape, generator=generator)).sum().backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        results.append((attended, gates, [f.grad for f in features], gradients))
    (attended, gates, grads, weights), (attended_n, gates_n, grads_n, weights_n) = results
    assert torch.allclose(attended, attended_n, atol=1e-5)
    assert torch.allclose(torch.stack(gates, 1), gates_n, atol=1e-5) and not gates[0].requires_grad
    for gradient, expected in zip(grads, grads_n, strict=True):
        assert torch.allclose(gradient, expected, atol=1e-5, rtol=1e-5)
    assert weights.keys() == weights_n.keys() and len(weights) >= 8
    for name, gradient in weights.items():
        # Summed over 2 x 210 positions.
        assert torch.allclose(gradient, weights_n[name], atol=1e-4, rtol=1e-5), name


def saved_bytes(run: Callable[[list[Tensor]], Any], module: nn.Module, features: list[Tensor]) -> int:
    """What autograd keeps, without the weights and without the features, which the streams keep anyway."""
    known = {t.untyped_storage()._cdata for t in (*module.parameters(), *features)}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in known:
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run(features)
    assert result[0].requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize(("num_modalities", "share", "exact"), [(2, 0.70, 7 / 12), (4, 0.60, 13 / 24)])
def test_attention_keeps_less_for_the_backward_pass(num_modalities: int, share: float, exact: float) -> None:
    present = list(range(num_modalities))
    features = [torch.randn(1, 4, 12, 12, 12).requires_grad_() for _ in present]
    module = random_attention(num_modalities)
    naive = saved_bytes(lambda f: naive_attention(module, f, present), module, features)
    kept = saved_bytes(lambda f: module(f, present), module, features)
    # In units of one F_i: F_dual once; input and output of the norm and the gate per modality.
    assert kept / naive == pytest.approx(exact, rel=0.02) and kept <= share * naive
    module.recompute = True
    assert 0 < saved_bytes(lambda f: module(f, present), module, features) <= 0.1 * naive, "F_dual alone"


# ---- the network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_outputs_of_training_and_prediction(dimensions: int, residual: bool) -> None:
    net, x = maml(dimensions=dimensions, residual=residual), images(dimensions=dimensions)
    full, half = ([2, CLASSES, *[size] * dimensions] for size in (16, 8))
    outputs = net(x)
    assert [list(output.shape) for output in outputs] == [full, full, half, full, half]
    for i in range(2):
        for mine, level in zip(
            outputs[1 + 2 * i : 3 + 2 * i], net.streams[i](channels_last(x[:, i : i + 1])), strict=True
        ):
            assert torch.equal(mine, level), "a stream is the plan's own U-Net, and sees its own channel"
    both, attention = net(x, return_attention=True)
    assert torch.equal(both[0], outputs[0]) and list(attention.shape) == [2, 2, *[16] * dimensions]
    net.deep_supervision = False
    logits = net(x)
    assert isinstance(logits, Tensor) and torch.equal(logits, outputs[0])
    logits, again = net(x, return_attention=True)
    assert torch.equal(again, attention) and 0 < attention.min() < attention.max() < 1


def test_joint_logits_are_those_of_the_attended_features() -> None:
    """Fig. 1, with the features taken where the streams' own heads read them."""
    net, x = maml(3), images(3)
    read: dict[int, Tensor] = {}
    for i, stream in enumerate(net.streams):
        stream.decoder.seg_layers[-1].register_forward_hook(lambda _, args, __, i=i: read.update({i: args[0]}))
    joint = net(x)[0]
    attended, _ = naive_attention(net.attention, [read[i] for i in range(3)], [0, 1, 2])
    assert torch.allclose(joint, net.head(attended), atol=1e-5)


def test_a_modality_may_have_several_channels() -> None:
    torch.manual_seed(0)
    net = MAMLNet([unet(channels=2, classes=CLASSES), unet(classes=CLASSES)], [[2, 0], [1]])
    x = images(3)
    outputs = net(x)
    assert torch.equal(outputs[1], net.streams[0](channels_last(x[:, [2, 0]]))[0])
    assert torch.equal(outputs[3], net.streams[1](channels_last(x[:, [1]]))[0])


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("present", [[0], [2], [0, 1], [2, 1]])
def test_absent_modalities_are_never_read(present: list[int], deep_supervision: bool) -> None:
    net, x = maml(3, deep_supervision=deep_supervision), images(3)
    whole = flat(net(x))
    expected = flat(net(x, present=present))
    for channel in {0, 1, 2} - set(present):
        x[:, channel] = float("nan")
    assert_equal(flat(net(x, present=present)), expected)
    net.select_modalities(present)
    assert net.present == tuple(sorted(present))
    assert_equal(flat(net(x)), expected)
    net.select_modalities(None)
    assert_equal(flat(net(images(3))), whole)
    assert not torch.equal(whole[0], expected[0])
    assert len(expected) == (1 + 2 * len(present) if deep_supervision else 1)


def flat(output: Tensor | list[Tensor]) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else output


def assert_equal(a: list[Tensor], b: list[Tensor]) -> None:
    assert len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_subset_is_what_is_left_of_the_formulas() -> None:
    net, x = maml(3), images(3)
    read: dict[int, Tensor] = {}
    for i, stream in enumerate(net.streams):
        stream.decoder.seg_layers[-1].register_forward_hook(lambda _, args, __, i=i: read.update({i: args[0]}))
    joint, attention = net(x, present=[0, 2], return_attention=True)
    attended, gates = naive_attention(net.attention, [read[0], read[2]], [0, 2])
    assert 1 not in read, "the absent stream does not run"
    assert torch.allclose(joint[0], net.head(attended), atol=1e-5)
    assert torch.allclose(attention, gates, atol=1e-5)


def test_a_modality_alone_is_segmented_by_its_own_head() -> None:
    net, x = maml(deep_supervision=False), images()
    logits, attention = net(x, present=[1], return_attention=True)
    assert torch.equal(logits, net.streams[1](channels_last(x[:, 1:]))[0])
    assert torch.equal(attention, torch.ones(2, 1, 16, 16, 16))
    untrained_heads = maml(deep_supervision=False, stream_heads=False)
    untrained_heads.load_state_dict(net.state_dict())
    assert not torch.equal(untrained_heads(x, present=[1]), logits)
    assert untrained_heads(x, present=[1], return_attention=True)[1].max() < 1, "a gate, of attention over it alone"


@pytest.mark.parametrize(
    ("options", "present", "heads"),
    [({}, [0, 1], []), ({}, [1], ["1.1"]), ({"fusion": "ensemble"}, [0, 1], ["0.1", "1.1"])],
)
def test_prediction_computes_no_head_in_vain(options: dict[str, Any], present: list[int], heads: list[str]) -> None:
    net, ran = maml(deep_supervision=False, **options), []
    for i, stream in enumerate(net.streams):
        for level, head in enumerate(stream.decoder.seg_layers):
            head.register_forward_hook(lambda *_, name=f"{i}.{level}": ran.append(name))
    net(images(), present=present)
    assert ran == heads


@pytest.mark.parametrize(("indices", "named"), [([], r"\(\)"), ([2], r"\(2,\)"), ([-1, 0], r"\(-1, 0\)")])
def test_impossible_selections(indices: list[int], named: str) -> None:
    net = maml()
    for select in (net.select_modalities, lambda present: net(images(), present=present)):
        with pytest.raises(ValueError, match=f"modalities {named}: choose at least one of 0 to 1"):
            select(indices)
    assert net.present == (0, 1)


@pytest.mark.parametrize("options", [{}, {"fusion": "ensemble"}])
@pytest.mark.parametrize("present", [[0], [0, 1]])
def test_prediction_returns_a_tensor_of_its_own(options: dict[str, Any], present: list[int]) -> None:
    net, x = maml(deep_supervision=False, **options), images()
    with torch.no_grad():
        first = net(x, present=present)
        expected = first.clone()
        first *= 0  # as nnU-Net's predictor does
        assert torch.equal(net(x, present=present), expected)
        net.deep_supervision = True
        storages = [output.untyped_storage()._cdata for output in net(x, present=present)]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize("regions", [False, True])
def test_the_ensemble_averages_probabilities(regions: bool) -> None:
    net, x = maml(3, fusion="ensemble", region_targets=regions), images(3)
    assert net.attention is None and net.head is None
    joint, attention = net(x, return_attention=True)
    streams = [net.streams[i](channels_last(x[:, i : i + 1]))[0] for i in range(3)]
    probability = torch.sigmoid if regions else lambda z: torch.softmax(z, 1)
    expected = torch.stack([probability(z) for z in streams]).mean(0)
    assert torch.allclose(probability(joint[0]), expected, atol=1e-6)
    assert torch.allclose(attention, torch.full((2, 3, 16, 16, 16), 1 / 3))
    if not regions:
        assert torch.allclose(joint[0].exp(), expected, atol=1e-6), "log-probabilities"
    assert torch.equal(net(x, present=[1])[0], streams[1])


def test_extreme_predictions_stay_finite() -> None:
    logits = [torch.tensor([[[200.0], [-200.0]]]), torch.tensor([[[-200.0], [200.0]]])]
    for regions in (False, True):
        joint = mean_prediction(logits, regions)
        assert joint.isfinite().all() and torch.allclose(joint[0, 0], joint[0, 1], atol=1e-4)


@pytest.mark.parametrize("fusion", ["attention", "ensemble"])
def test_strict_loading_with_deep_supervision_on_and_off(fusion: str) -> None:
    trained, x = maml(fusion=fusion), images()
    predicting = MAMLNet(
        [unet(classes=CLASSES), unet(classes=CLASSES)], [[0], [1]], fusion=fusion, deep_supervision=False
    )
    predicting.load_state_dict(trained.state_dict())
    assert torch.equal(predicting(x), trained(x)[0])
    assert torch.equal(predicting.eval()(x), trained(x)[0]), "a flag decides what is returned, not the mode"
    trained.select_modalities([1])
    assert not [name for name in trained.state_dict() if "present" in name]
    assert_equal(copy.deepcopy(trained)(x), trained(x))


def test_the_joint_loss_teaches_every_stream() -> None:
    net = maml(3)
    net(images(3))[0].square().mean().backward()
    for i, stream in enumerate(net.streams):
        assert sum(float(p.grad.abs().sum()) for p in stream.parameters() if p.grad is not None) > 0, i
        assert all(p.grad is None for p in stream.decoder.seg_layers.parameters())


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_in_one_piece_for_every_subset(recompute: bool) -> None:
    net = maml(dimensions=2, recompute=recompute)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for present in (None, (0,), (0, 1)):
        gradients = []
        for network in (net, compiled):
            net.zero_grad(set_to_none=True)
            outputs, attention = network(images(dimensions=2), present=present, return_attention=True)
            torch.stack([output.square().mean() for output in outputs]).sum().backward()
            gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
            assert not attention.requires_grad
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_feature_maps_are_those_of_streams_and_attention() -> None:
    """Counted at the convolutions themselves, as nnU-Net counts its U-Net."""
    net = maml(3)
    streams = sum(stream.compute_conv_feature_map_size((16, 16, 16)) for stream in net.streams)
    counted = [0]

    def add(_: nn.Module, __: Any, output: Tensor) -> None:
        counted[0] += output[0].numel()

    for module in (*(gate.second for gate in net.attention.gates), net.head):
        module.register_forward_hook(add)
    net(images(3))
    f_dual, f_att, first_convolutions = (n * 4 * 16**3 for n in (1, 1, 3))
    assert net.compute_conv_feature_map_size((16, 16, 16)) == streams + counted[0] + f_dual + f_att + first_convolutions
    net.attention.recompute = True
    assert net.compute_conv_feature_map_size((16, 16, 16)) == streams + (2 * 4 + 2 * 4 + CLASSES) * 16**3
    ensemble = maml(3, fusion="ensemble")
    assert ensemble.compute_conv_feature_map_size((16, 16, 16)) == streams


def test_what_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="Linear is not a U-Net of nnU-Net's"):
        MAMLNet([unet(), nn.Linear(2, 2)], [[0], [1]])
    for modalities, fusion in itertools.product(([[0]], [[0], [1]]), ("attention", "sum")):
        if (len(modalities), fusion) != (2, "attention"):
            with pytest.raises(ValueError, match=rf"2 streams for {len(modalities)} modalities, fusion='{fusion}'"):
                MAMLNet([unet(), unet()], modalities, fusion=fusion)
