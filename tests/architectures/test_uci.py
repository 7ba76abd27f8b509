from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunet_ext.architectures.uci import ABLATIONS, UCINet
from nnunet_ext.architectures.uci_decoder import linear_head
from nnunet_ext.architectures.uci_topology import Topology

SMALL = {
    "features_per_stage": (4, 4, 8, 8, 16, 16),
    "blocks_per_stage": (1, 1, 1, 2),
    "heads_per_stage": (1, 1, 2, 2),
    "num_prototypes": 8,
}


def small_net(seed=0, **options):
    torch.manual_seed(seed)
    arguments = {
        "input_channels": 1,
        "num_classes": 2,
        "patch_size": (12, 32, 40),
        "topology": Topology.paper(),
        "xray_patch_size": (40, 48),
        "num_xray_classes": 3,
        **SMALL,
        **options,
    }
    return UCINet(**arguments)


@functools.cache
def paper_net(num_xray_classes=14):
    with torch.device("meta"):
        return UCINet(
            input_channels=1,
            num_classes=2,
            patch_size=(32, 256, 256),
            topology=Topology.paper(),
            num_xray_classes=num_xray_classes,
        ).eval()


def inputs(net, batch_size=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ct = torch.randn(batch_size, 1, *net.sizes["ct"][0], generator=generator)
    xray = torch.randn(2 * batch_size, 1, *net.sizes["xray"][0], generator=generator)
    return ct, xray


def loss_of(outputs):
    return sum(output.square().mean() for output in (outputs if isinstance(outputs, list) else [outputs]))


def banks_of(net):
    return {name: value.clone() for name, value in net.banks.state_dict().items()}


# The paper's network


@pytest.mark.parametrize(("num_xray_classes", "expected"), [(14, 61_649_464), (3, 61_645_933)])
def test_parameter_count(num_xray_classes, expected):
    net = paper_net(num_xray_classes)
    assert sum(p.numel() for p in net.parameters()) == expected
    assert len(list(net.parameters())) == 364


def test_parameter_counts_of_the_parts():
    net = paper_net()
    (blocks,) = net.encoder.stages.values()
    counts = [sum(p.numel() for p in stage.parameters()) for stage in blocks]
    interaction = sum(p.numel() for block in blocks[3] for p in block.warm_up.parameters())
    assert interaction == 2 * 926_080
    assert [round(n / 1e6, 2) for n in (*counts[:3], counts[3] - interaction)] == [0.27, 1.62, 4.95, 2.47]
    assert round(sum(p.numel() for p in net.encoder.parameters()) / 1e6, 2) == 42.03


def shapes(net, modality, image):
    """Output size of the named parts of `net` in one forward."""
    seen = {}

    def record(name):
        return lambda module, args, output: seen.update({name: tuple(output.shape)})

    branch = net.encoder.branches[modality]
    parts = {f"stem{i}": part for i, part in enumerate(branch.stem)}
    parts |= {f"embed{i + 1}": part for i, part in enumerate(branch.patch_embeddings)}
    parts |= {f"stage{i + 1}": stage[-1] for i, stage in enumerate(net.encoder.stages["shared"])}
    parts |= {f"keys{i + 1}": stage[-1].attention.key_value for i, stage in enumerate(net.encoder.stages["shared"])}
    parts |= {f"dec{i + 1}": block for i, block in enumerate(net.decoder.blocks)}
    parts |= {"head_a": net.decoder.convs[3]}
    handles = [part.register_forward_hook(record(name)) for name, part in parts.items()]
    with torch.no_grad():
        net(**{modality: image})
    for handle in handles:
        handle.remove()
    return seen


def test_ct_shapes_are_the_papers():
    assert shapes(paper_net(), "ct", torch.empty(1, 1, 32, 256, 256, device="meta")) == {
        "stem0": (1, 32, 32, 256, 256),
        "stem1": (1, 64, 32, 128, 128),
        "embed1": (1, 128, 16, 64, 64),
        "embed2": (1, 256, 8, 32, 32),
        "embed3": (1, 320, 8, 16, 16),
        "embed4": (1, 320, 8, 8, 8),
        "stage1": (1, 65536, 128),
        "stage2": (1, 8192, 256),
        "stage3": (1, 2048, 320),
        "stage4": (1, 512, 320),
        "keys1": (1, 128, 256),
        "keys2": (1, 128, 512),
        "keys3": (1, 256, 640),
        "keys4": (1, 512, 640),
        "dec1": (1, 2048, 320),
        "dec2": (1, 8192, 256),
        "dec3": (1, 65536, 128),
        "head_a": (1, 64, 32, 128, 128),
    }


def test_xray_shapes_are_the_papers():
    seen = shapes(paper_net(), "xray", torch.empty(2, 3, 224, 224, device="meta"))
    assert [seen[f"stem{i}"][1:] for i in range(2)] == [(32, 224, 224), (64, 112, 112)]
    assert [seen[f"embed{i}"][2:] for i in (1, 2, 3, 4)] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert [seen[f"stage{i}"][1:] for i in (1, 2, 3, 4)] == [(3137, 128), (785, 256), (197, 320), (50, 320)]
    assert [seen[f"keys{i}"][1] for i in (1, 2, 3, 4)] == [50] * 4


def test_outputs_are_the_papers():
    net = paper_net()
    logits = net(torch.empty(1, 1, 32, 256, 256, device="meta"))
    assert [tuple(x.shape) for x in logits] == [
        (1, 2, 32, 256, 256), (1, 2, 32, 128, 128), (1, 2, 16, 64, 64), (1, 2, 8, 32, 32), (1, 2, 8, 16, 16),
    ]  # fmt: skip
    quarter, eighth, sixteenth = 1 / 4, 1 / 8, 1 / 16
    assert net.deep_supervision_scales == [
        [1, 1, 1], [1, 0.5, 0.5], [0.5, quarter, quarter], [quarter, eighth, eighth], [quarter, sixteenth, sixteenth],
    ]  # fmt: skip
    assert net(xray=torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 14)


# Sizes

PLANS = [
    ((32, 256, 256), [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((28, 256, 256), [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((24, 192, 192), [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((28, 192, 160), [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((16, 96, 96), [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((24, 80, 96), [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((20, 56, 40), [(1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2)]),
    ((12, 40, 56), [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)]),
    ((64, 64, 64), [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]),
    ((128, 128, 128), [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]),
]


@pytest.mark.parametrize(("patch_size", "strides"), PLANS, ids=lambda value: "x".join(map(str, value))[:20])
def test_every_plan_gives_outputs_where_its_targets_are(patch_size, strides):
    topology = Topology.from_plan(strides, [(1, 3, 3)] + [(3, 3, 3)] * (len(strides) - 1), patch_size)
    with torch.device("meta"):
        net = small_net(patch_size=patch_size, topology=topology, input_channels=2).eval()
        logits = net(torch.empty(1, 2, *patch_size))
    # nnU-Net resizes the target to round(size * scale), and divides by the cumulative strides of the plan.
    targets = [[round(n * s) for n, s in zip(patch_size, scale, strict=True)] for scale in net.deep_supervision_scales]
    assert [list(x.shape[2:]) for x in logits] == targets
    total = [1, 1, 1]
    for stride, output in zip(strides[1:5], targets[1:], strict=False):
        total = [t * s for t, s in zip(total, stride, strict=True)]
        assert output == [n // t for n, t in zip(patch_size, total, strict=True)]


@settings(deadline=None, max_examples=15)
@given(
    patch_size=st.tuples(st.integers(5, 40), st.integers(33, 70), st.integers(33, 70)),
    xray_patch_size=st.tuples(st.integers(16, 70), st.integers(16, 70)),
)
def test_any_patch_size_trains(patch_size, xray_patch_size):
    net = small_net(patch_size=patch_size, xray_patch_size=xray_patch_size)
    ct, xray = inputs(net, 1)
    logits, classes = net(ct, xray=xray)
    assert logits[0].shape == (1, 2, *patch_size) and classes.shape == (2, 3)
    (loss_of(logits) + loss_of(classes)).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"ct input has size \(12, 32, 32\), the network is built for \(12, 32, 40\)"):
        small_net()(torch.zeros(1, 1, 12, 32, 32))


# Deep supervision and state


def test_deep_supervision_is_a_flag_of_the_decoder():
    net = small_net().eval()
    ct, _ = inputs(net)
    logits = net(ct)
    net.decoder.deep_supervision = False
    assert isinstance(logits, list) and len(logits) == 5
    torch.testing.assert_close(net(ct), logits[0])
    assert torch.is_tensor(net.train()(ct)), "the flag decides, not the mode"


def test_strict_loading_with_deep_supervision_on_or_off():
    trained, built = small_net(seed=1), small_net(seed=2, deep_supervision=False)
    ct, xray = inputs(trained)
    loss_of(trained(xray=xray)).backward()
    assert list(trained.state_dict()) == list(built.state_dict())
    assert sum(".seg_layers." in name for name in built.state_dict()) == 10
    built.load_state_dict(trained.state_dict(), strict=True)
    torch.testing.assert_close(built.eval()(ct), trained.eval()(ct)[0])


def test_every_parameter_learns():
    """After one X-ray and one CT step.

    The coarsest head does too, as it is nnU-Net's loss that gives it weight 0. What the biases of attention keys get is
    rounding error alone: softmax ignores what is added to all keys.
    """
    net = small_net()
    ct, xray = inputs(net)
    loss_of(net(xray=xray)).backward()
    loss_of(net(ct)).backward()
    # The other bank is empty when the first X-rays come, but not when the CT does.
    dead = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not {name for name in dead if not name.endswith("norm_key.bias")}


def test_what_each_modality_does_not_use():
    net = small_net()
    ct, xray = inputs(net)
    loss_of(net(ct)).backward()
    unused = {name for name, p in net.named_parameters() if p.grad is None}
    assert all(name.startswith(("encoder.branches.xray", "classifier")) or ".convs.xray." in name for name in unused)
    net.zero_grad(set_to_none=True)
    loss_of(net(xray=xray)).backward()
    unused = {name for name, p in net.named_parameters() if p.grad is None}
    assert all(name.startswith(("encoder.branches.ct", "decoder")) or ".convs.ct." in name for name in unused)


def test_linear_head_is_head_of_upsampled_plus_skip():
    upsample, head = nn.ConvTranspose3d(6, 4, (1, 2, 2), (1, 2, 2)), nn.Conv3d(4, 3, 1)
    volume, skip = torch.randn(2, 6, 3, 4, 4), torch.randn(2, 4, 3, 7, 8)
    expected = head(upsample(volume)[..., :7, :] + skip)
    torch.testing.assert_close(linear_head(volume, skip, upsample, head), expected, rtol=1e-5, atol=1e-5)


# KC and KI in the network


def test_each_forward_updates_its_own_banks_once():
    net = small_net(prototype_momentum=0.9)
    ct, xray = inputs(net)
    net(xray=xray)
    after_xray = banks_of(net)
    assert all(after_xray[f"{i}.xray.initialised"].all() for i in range(2))
    assert not any(after_xray[f"{i}.ct.initialised"].any() for i in range(2))
    net(ct)
    after_ct = banks_of(net)
    changed = {name for name in after_ct if not torch.equal(after_ct[name], after_xray[name])}
    assert {name.split(".")[1] for name in changed} == {"ct"}


def test_banks_do_not_change_at_prediction():
    net = small_net()
    ct, xray = inputs(net)
    net(ct, xray=xray)
    before = banks_of(net)
    net.eval()(ct, xray=xray)
    with torch.no_grad():
        net.train()(ct, xray=xray)
    assert all(torch.equal(value, before[name]) for name, value in banks_of(net).items())


def test_prediction_uses_the_xray_bank():
    net = small_net().eval()
    ct, _ = inputs(net)
    plain = net(ct)[0]
    for banks in net.banks:
        banks["xray"].prototypes.normal_()
    torch.testing.assert_close(net(ct)[0], plain)  # not initialised: not used
    for banks in net.banks:
        banks["xray"].initialised.fill_(True)
    assert not torch.allclose(net(ct)[0], plain)


def test_warm_up_learns_from_both_losses():
    net = small_net()
    ct, xray = inputs(net)
    net(ct, xray=xray)
    for forward in (lambda: net(ct), lambda: net(xray=xray)):
        net.zero_grad()
        loss_of(forward()).backward()
        for block in net.encoder.stages["shared"][-1]:
            assert all(p.grad.abs().sum() > 0 for p in block.warm_up.parameters())


@pytest.mark.parametrize("options", [{}, {"shared_bank": True}, {"checkpoint_activations": True}])
def test_two_backwards_equal_the_joint_one(options):
    nets = [small_net(**options) for _ in range(2)]
    ct, xray = inputs(nets[0])
    for _ in range(2):  # the second time all banks are in use
        for net in nets:
            net.zero_grad()
        torch.manual_seed(4)  # the banks draw their first tokens
        xray_loss = loss_of(nets[0](xray=xray))
        (xray_loss + loss_of(nets[0](ct))).backward()
        torch.manual_seed(4)
        loss_of(nets[1](xray=xray)).backward()
        loss_of(nets[1](ct)).backward()
        for joint, separate in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            torch.testing.assert_close(joint.grad, separate.grad, rtol=1e-6, atol=1e-6)


def test_usage():
    net = small_net()
    ct, xray = inputs(net)
    net(ct, xray=xray)
    usage = net.prototype_usage()
    assert set(usage) == {
        f"{m}_{i}_{what}" for m in ("ct", "xray") for i in range(2) for what in ("used", "perplexity")
    }
    assert all(0 < usage[name] <= 8 for name in usage)
    assert all(value == (0 if name.endswith("used") else 1) for name, value in net.prototype_usage().items())


def test_one_bank_for_both_blocks():
    shared, own = small_net(shared_bank=True), small_net()
    assert len(shared.banks) == 1 and len(own.banks) == 2
    ct, xray = inputs(shared)
    shared(ct, xray=xray), own(ct, xray=xray)
    xray_tokens = len(xray) * 2 * 2  # each of the two blocks condenses them: 40 x 48 pixels become 2 x 2 tokens
    assert shared.banks[0]["xray"].usage.sum() == 2 * xray_tokens
    assert own.banks[0]["xray"].usage.sum() == xray_tokens


def test_grey_xrays_stand_for_three_channels():
    net = small_net().eval()
    _, xray = inputs(net)
    torch.testing.assert_close(net(xray=xray), net(xray=xray.expand(-1, 3, -1, -1)))


def test_half_precision_forward_keeps_the_banks_in_single():
    net = small_net()
    ct, xray = inputs(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, classes = net(ct, xray=xray)
    (loss_of(logits) + loss_of(classes)).backward()
    assert all(b.prototypes.dtype == torch.float32 for banks in net.banks for b in banks.values())
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.slow
def test_two_ranks_train_like_one_process(tmp_path, monkeypatch):
    """Gradients and banks of DistributedDataParallel equal those of one process on the concatenated batch."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import uci_ranks

    torch.manual_seed(5)
    single = uci_ranks.make_net()
    for ct, xray in uci_ranks.batches():
        uci_ranks.step(single, ct, xray)

    mp.spawn(uci_ranks.train_on_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    expected = uci_ranks.state_of(single)
    assert all(name in ranks[0] for name in expected) and len(expected) > 100
    for name, value in expected.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        # Instance normalisation over the few voxels of the last stage amplifies rounding in the gradients.
        tolerance = max(1e-6, 1e-4 * value.abs().max().item()) if name.startswith("gradient") else 1e-5
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-4, atol=tolerance, msg=name)


# Variants


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablations_train(ablation):
    net = small_net(ablation=ablation)
    ct, *_ = inputs(net) if ablation != "ct_only" else (torch.randn(2, 1, 12, 32, 40),)
    if ablation != "ct_only":
        loss_of(net(xray=inputs(net)[1])).backward()
    loss_of(net(ct)).backward()
    assert all(p.grad is not None for p in net.parameters())
    names = " ".join(net.state_dict())
    assert ("xray" in names) == ("classifier" in names) == (ablation != "ct_only")
    assert ("banks" in names) == (ablation not in ("ct_only", "no_kc_no_ki"))
    assert ("warm_up" in names) == (ablation not in ("ct_only", "no_kc_no_ki", "no_warmup"))
    assert ("stages.xray" in names) == (ablation == "separate_encoders")
    assert bool(net.prototype_usage()) == (ablation in ("none", "separate_encoders", "no_warmup"))


def test_without_condensation_the_bank_holds_the_latest_tokens():
    net = small_net(ablation="no_kc", num_prototypes=4, prototype_init="first")
    _, xray = inputs(net)
    net(xray=xray)
    first = net.banks[0]["xray"].prototypes.clone()
    net(xray=xray + torch.randn_like(xray))
    assert (net.banks[0]["xray"].prototypes != first).any(1).all()


@pytest.mark.parametrize(
    "options",
    [
        {"sigma_ratio": 2, "kc_include_cls": True},
        {"full_resolution_conv": True, "project_prototypes": True},
        {"position_embedding": "factorised", "checkpoint_activations": True},
        {"sr_ratios": (1, 1, 1, 1), "mlp_ratio": 2.0, "reseed_after": 1},
    ],
)
def test_settings_train(options):
    net = small_net(**options)
    ct, xray = inputs(net)
    for _ in range(2):
        logits, classes = net(ct, xray=xray)
        (loss_of(logits) + loss_of(classes)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_recomputing_activations_changes_no_gradient():
    plain, recomputing = (
        small_net(full_resolution_conv=True),
        small_net(full_resolution_conv=True, checkpoint_activations=True),
    )
    ct, _ = inputs(plain)
    for net in (plain, recomputing):
        loss_of(net(ct)).backward()
    for name, p in recomputing.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, plain.get_parameter(name).grad, msg=name)


@pytest.mark.parametrize("options", [{}, {"full_resolution_conv": True}, {"ablation": "separate_encoders"}])
def test_feature_map_size_counts_every_layer_of_the_ct_path(options):
    # The warm-up is left out of the count: its size does not depend on that of the patch.
    net = small_net(patch_size=(16, 64, 32), **options)
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        counted += output.numel()

    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.ConvTranspose3d) and "warm_up" not in name:
            module.register_forward_hook(count)
    net(torch.randn(1, 1, 16, 64, 32))
    if not options.get("full_resolution_conv"):
        counted += 2 * 16 * 64 * 32  # the functional transposed convolution of `linear_head`
    assert net.compute_conv_feature_map_size((16, 64, 32)) == counted


@pytest.mark.slow
def test_compiles_without_graph_break():
    net = small_net(reseed_after=3, blocks_per_stage=(1, 1, 1, 1))
    ct, xray = inputs(net)
    expected = copy.deepcopy(net)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for _ in range(2):
        torch.manual_seed(3)
        logits, classes = compiled(ct, xray=xray)
        torch.manual_seed(3)
        torch.testing.assert_close((logits, classes), expected(ct, xray=xray))
    for name, value in banks_of(expected).items():
        torch.testing.assert_close(net.banks.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablation": "no_ki"}, "ablation='no_ki' is not one of"),
        ({"num_xray_classes": None}, "num_xray_classes=None"),
        ({"position_embedding": "sine"}, "position_embedding='sine'"),
    ],
)
def test_unusable_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        small_net(**options)


def test_unusable_inputs():
    with pytest.raises(ValueError, match="needs ct, xray or both"):
        small_net()()
    with pytest.raises(ValueError, match="without an X-ray branch"):
        small_net(ablation="ct_only", num_xray_classes=None)(xray=torch.zeros(1, 1, 40, 48))
