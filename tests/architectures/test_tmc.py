"""The TMC network: the paper's sizes, what text does to the logits and what it must not, any size of image."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from toy_tmc import CLS, DEFAULT, PAD, SEP, VOCABULARY_SIZE, image, open_gates, sentence, tiny_tmc

from nnunet_ext.architectures.tmc import TMCNet
from nnunet_ext.architectures.tmc_alignment import Alignment
from nnunet_ext.architectures.tmc_position import sine_positions
from nnunet_ext.losses.alignment import alignment_loss

STRIDES = (4, 8, 16, 32)
ABLATIONS: dict[str, dict[str, Any]] = {
    "pixel": {},
    "siglip": {"align_mode": "siglip"},
    "literal": {"align_mode": "literal"},
    "no alignment": {"align_mode": "none"},
    "no cross attention": {"cross_attention": False},
    "no text": {"with_text": False, "align_mode": "none"},
    "frozen embeddings": {"frozen_layers": 0},
    "frozen first stage": {"frozen_layers": 1},
    "frozen text": {"frozen_layers": 4},
    "frozen text, no cross attention": {"frozen_layers": 4, "cross_attention": False},
}


def loss_of(net: TMCNet, mode: str, x: Tensor, tokens: Tensor) -> Tensor:
    target = (x[:, :1] > 0).float()
    if not net.alignment:
        return nn.functional.cross_entropy(net(x, tokens=tokens), target[:, 0].long())
    logits, alignment = net(x, tokens=tokens, return_alignment=True)
    loss = alignment_loss(
        mode,
        **alignment._asdict(),
        tokens=tokens,
        target=target,
        log_scales=net.alignment_scale,
        biases=net.alignment_bias,
        strides=STRIDES,
    )
    return nn.functional.cross_entropy(logits, target[:, 0].long()) + loss


def train(net: TMCNet, mode: str = "pixel", steps: int = 3) -> None:
    tokens = torch.cat([sentence(4, 5), sentence(6)])
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(net, mode, image(net.swin.patch_embed.proj.in_channels), tokens).backward()
        optimizer.step()


# ---- the paper's network ------------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + bias * outputs


def cross_attention_size(width: int, context: int) -> int:
    norms = 2 * (width + context + width)
    attention = 2 * linear(width, width) + linear(context, width) + linear(context, width, bias=False)
    return norms + attention + linear(width, 4 * width) + linear(4 * width, width)


@pytest.fixture(scope="module")
def paper_net() -> TMCNet:
    with torch.device("meta"):
        return TMCNet(3, 1, vocabulary_size=30522, default_prompt=[101, 102])


def test_parameters_of_the_papers_network(paper_net: TMCNet) -> None:
    """Swin-T without norm and head, BERT-base with 32 positions, one sentence and no pooler, LViT's width."""
    assert paper_net.text is not None
    widths = (96, 192, 384, 768)
    swin_t, last_norm, head = 28_288_354, 2 * 768, linear(768, 1000)
    assert count(paper_net.swin) == swin_t - last_norm - head == 27_517_818
    bert_base, pooler, unused_rows = 109_482_240, linear(768, 768), (512 - 32 + 1) * 768
    assert count(paper_net.text) == bert_base - pooler - unused_rows == 108_522_240
    assert [count(m) for m in paper_net.to_vision] == [cross_attention_size(c, 768) for c in widths]
    assert [count(m) for m in paper_net.to_text] == [cross_attention_size(768, c) for c in widths[:3]]
    assert count(paper_net.alignment) == sum(linear(c, 256) + linear(768, 256) for c in widths)
    assert count(paper_net.double_u) == double_u_size(widths)
    parts = (paper_net.swin, paper_net.text, paper_net.to_vision, paper_net.to_text, paper_net.alignment)
    assert count(paper_net) == sum(map(count, parts)) + count(paper_net.double_u) + 4 + 4 == 201_280_771


def double_u_size(widths: tuple[int, ...]) -> int:
    def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
        return inputs * outputs * kernel**2 + 2 * outputs  # no bias, norm

    def block(d: int) -> int:
        return (
            2 * 2 * d
            + linear(d, d, False)
            + linear(d, 2 * d, False)
            + linear(d, d)
            + linear(d, 4 * d)
            + linear(4 * d, d)
        )

    total = conv(3, 64) + linear(64, 1) + 64 * 14 * 14
    for i, (c, w) in enumerate(zip(widths, (64, 128, 256, 512), strict=True)):
        below, above, patch = min(2 * w, 512), max(w // 2, 64), 16 // 2**i
        total += 2 * c + linear(c, w, False)  # F_i to the channels of x_{i-1}
        total += conv(2 * w, below) + conv(below, below)  # DownCNN
        total += 2 * w * w * patch**2 + w + block(w) + (linear(w // 2, w, False) if i else 0)  # DownViT
        total += block(w) + (linear(2 * w, w) if i < 3 else 0) + conv(w, w, 1)  # UpViT, reconstruction
        total += conv(2 * w, above) + conv(above, above)  # UpCNN
    return total


def test_operations_of_the_papers_network(paper_net: TMCNet) -> None:
    """LViT alone, on which the paper builds, is published with 54.1 GFLOP."""
    x, tokens = (
        torch.empty(1, 3, 224, 224, device="meta"),
        torch.empty(1, 32, dtype=torch.long, device="meta"),
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert paper_net(x, tokens=tokens).shape == (1, 1, 224, 224)
    assert 70e9 < counter.get_total_flops() < 75e9


# ---- what text does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_before_training_text_has_no_effect_at_all(mode: str) -> None:
    net, text_free = tiny_tmc(), tiny_tmc(**ABLATIONS["no text"])
    missing = text_free.load_state_dict(net.state_dict(), strict=False).missing_keys
    assert missing == [] and text_free.text is None
    for each in (net, text_free):
        getattr(each, mode)()
    logits = net(image(), tokens=sentence(4, 5, 6))
    assert torch.equal(logits, text_free(image()))
    assert not torch.equal(logits, open_gates(net)(image(), tokens=sentence(4, 5, 6)))


@pytest.mark.parametrize("ablation", ["pixel", "no alignment", "frozen text"])
def test_after_training_the_sentence_changes_the_logits(ablation: str) -> None:
    net = tiny_tmc(**ABLATIONS[ablation])
    train(net)
    net.eval()
    first, second = (net(image(), tokens=sentence(word)) for word in (4, 6))
    assert (first - second).abs().max() > 1e-3


def test_text_reaches_every_stage_from_every_stage() -> None:
    """A sentence changes F of its own stage, and through F_L what the next stage reads."""
    net = open_gates(tiny_tmc().eval())
    for stage in range(3):
        closed = copy.deepcopy(net)
        for attention in (closed.to_vision[stage], closed.to_text[stage]):
            nn.init.zeros_(attention.mlp[-1].weight)
            nn.init.zeros_(attention.mlp[-1].bias)
        assert not torch.allclose(closed(image(), tokens=sentence(4)), net(image(), tokens=sentence(4)))
    only_text = copy.deepcopy(net)
    nn.init.zeros_(only_text.to_text[1].mlp[-1].weight)
    assert not torch.allclose(only_text(image(), tokens=sentence(4)), net(image(), tokens=sentence(4)))


def test_without_cross_attention_text_acts_through_the_loss_alone() -> None:
    net = tiny_tmc(**ABLATIONS["no cross attention"])
    train(net)
    net.eval()
    logits = net(image(), tokens=sentence(4))
    assert torch.equal(logits, net(image(), tokens=sentence(6)))
    with_alignment, alignment = net(image(), tokens=sentence(6), return_alignment=True)
    other = net(image(), tokens=sentence(4), return_alignment=True)[1]
    assert torch.equal(logits, with_alignment) and not torch.allclose(alignment.maps[0], other.maps[0])


WORDS = st.lists(st.integers(4, VOCABULARY_SIZE - 1), max_size=6)
TRAINED = open_gates(tiny_tmc().eval())


@settings(max_examples=15, deadline=None)
@given(words=WORDS, padding=st.integers(0, 24), other=WORDS)
def test_padding_never_changes_the_logits(words: list[int], padding: int, other: list[int]) -> None:
    """Not its amount, and not that another image of the batch needs it."""
    x, tokens = image(size=(32, 32)), sentence(*words, length=len(words) + 2)
    length = max(len(words), len(other)) + 2 + padding
    with torch.no_grad():
        expected = TRAINED(x, tokens=tokens)
        padded = TRAINED(
            x, tokens=torch.cat([sentence(*words, length=min(length, 32)), sentence(*other, length=min(length, 32))])
        )
    torch.testing.assert_close(padded[0], expected[0], atol=1e-4, rtol=1e-4)


def test_what_is_behind_the_padding_mask_is_not_read() -> None:
    net = open_gates(tiny_tmc().eval())
    logits = net(image(), tokens=sentence(4))
    with torch.no_grad():
        net.text.embeddings.word_embeddings.weight[PAD] = 100
    assert torch.allclose(net(image(), tokens=sentence(4)), logits, atol=1e-5)


def test_images_of_a_batch_are_independent() -> None:
    net = open_gates(tiny_tmc().train())
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    both = net(image(), tokens=torch.cat([sentence(4), sentence(5)]))
    assert torch.allclose(both[1:], net(image()[1:], tokens=sentence(5)), atol=1e-4)


# ---- where sentences come from ------------------------------------------------------------------------------------


def test_given_selected_default() -> None:
    net = open_gates(tiny_tmc(default_prompt=(CLS, 7, SEP)).eval())
    default, selected, given_ = (net(image(), tokens=sentence(word)) for word in (7, 8, 9))
    assert torch.allclose(net(image()), default, atol=1e-5)
    net.select_prompts(sentence(8))
    assert torch.equal(net(image()), selected)
    assert torch.equal(net(image(), tokens=sentence(9)), given_)
    net.select_prompts(torch.cat([sentence(8), sentence(9)]))
    assert torch.allclose(net(image())[1], given_[1], atol=1e-5)
    net.select_prompts(None)
    assert torch.allclose(net(image()), default, atol=1e-5)


def test_a_checkpoint_holds_the_default_prompt_and_not_the_selected_ones() -> None:
    net = open_gates(tiny_tmc(default_prompt=(CLS, 7, SEP)).eval())
    net.select_prompts(sentence(8))
    weights = net.state_dict()
    assert weights["default_prompt"].tolist() == [[CLS, 7, SEP] + [PAD] * 29]
    other = tiny_tmc(seed=1).eval()
    other.select_prompts(sentence(9))
    other.load_state_dict(weights, strict=True)
    assert other.prompts is not None and other.prompts.tolist() == sentence(9).tolist(), "a new fold, the same sentence"
    other.select_prompts(None)
    assert torch.equal(other(image()), net(image(), tokens=net.default_prompt))


# ---- learning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_no_parameter_is_dead(ablation: str) -> None:
    """After the gates have opened, all have a gradient that is not zero."""
    options = ABLATIONS[ablation]
    net = tiny_tmc(2, **options)
    train(net, options.get("align_mode", "pixel"))
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    # A bias of keys shifts all logits of a softmax alike; those of BERT are there to take its weights.
    dead = [name for name, p in trained.items() if not p.grad.any() and not name.endswith("self.key.bias")]
    assert dead == []
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert all(name.startswith("text.") for name in frozen) and bool(frozen) == ("frozen_layers" in options)


def test_at_the_start_the_gradient_is_there_in_one_step() -> None:
    """DistributedDataParallel waits for every parameter at every step."""
    net = tiny_tmc()
    train(net, steps=1)
    assert all(p.grad is not None for p in net.parameters())


def test_temperature_and_bias_are_learned() -> None:
    net = tiny_tmc(initial_temperature=0.5)
    assert net.alignment_scale.tolist() == pytest.approx([math.log(2)] * 4) and net.alignment_bias.tolist() == [0] * 4
    names = dict(net.named_parameters())
    assert {"alignment_scale", "alignment_bias"} <= set(names)
    train(net, steps=1)
    assert (net.alignment_scale != math.log(2)).all() and (net.alignment_bias != 0).all()
    assert tiny_tmc(align_mode="siglip").alignment_bias.tolist() == [-10] * 4
    assert tiny_tmc(align_mode="literal").alignment_bias is None, "the printed formula has none"
    assert tiny_tmc(align_mode="none").alignment_scale is None


# ---- alignment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(50, 70), (64, 32), (33, 40)])
def test_alignment_is_at_the_resolution_of_its_stage(size: tuple[int, int]) -> None:
    alignment: Alignment = tiny_tmc().eval()(image(size=size), tokens=sentence(4), return_alignment=True)[1]
    assert [tuple(m.shape) for m in alignment.maps] == [
        (2, math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in STRIDES
    ]
    assert all(m.abs().max() <= 1 + 1e-6 for m in alignment.maps)
    assert [tuple(v.shape) for v in (*alignment.pooled_vision, *alignment.text)] == [(2, 8)] * 8


def test_alignment_is_taken_before_fusion() -> None:
    """The first stage's knows nothing of the other modality; the second stage's does."""
    net = open_gates(tiny_tmc().eval())
    one, other = (net(image(), tokens=sentence(word), return_alignment=True)[1] for word in (4, 6))
    assert torch.equal(one.pooled_vision[0], other.pooled_vision[0])
    assert not torch.allclose(one.pooled_vision[1], other.pooled_vision[1])
    for_another_image = net(image().flip(0, 2), tokens=sentence(4), return_alignment=True)[1]
    assert torch.equal(one.text[0], for_another_image.text[0])
    assert not torch.allclose(one.text[1], for_another_image.text[1])


@pytest.mark.parametrize("ablation", ["pixel", "frozen first stage"])
def test_alignment_is_fp32_under_autocast(ablation: str) -> None:
    net = open_gates(tiny_tmc(**ABLATIONS[ablation]).eval())
    with torch.autocast("cpu", torch.bfloat16):
        logits, alignment = net(image(), tokens=sentence(4), return_alignment=True)
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    assert {entry.dtype for entries in alignment for entry in entries} == {torch.float32}
    expected = net(image(), tokens=sentence(4), return_alignment=True)[1]
    assert torch.allclose(alignment.maps[0], expected.maps[0], atol=0.05)
    loss = sum(m.sum() for m in alignment.maps) + logits.float().sum()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# ---- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "classes", "size"), [(1, 2, (50, 70)), (3, 4, (32, 32)), (2, 1, (64, 33)), (5, 2, (7, 100))]
)
def test_any_channels_and_any_size(channels: int, classes: int, size: tuple[int, int]) -> None:
    net = tiny_tmc(channels, classes)
    logits = net(image(channels, size), tokens=sentence(4))
    assert logits.shape == (2, classes, *size) and logits.is_contiguous()
    logits.sum().backward()


def test_padding_of_the_image_is_its_last_row_and_column() -> None:
    net = tiny_tmc(**ABLATIONS["no text"]).eval()
    x = image(size=(50, 70))
    padded = nn.functional.pad(x, (0, 26, 0, 14), mode="replicate")
    assert torch.equal(net(x), net(padded)[..., :50, :70])


def test_places_are_those_of_the_image_without_its_padding() -> None:
    net = tiny_tmc().eval()
    seen: list[Tensor] = []
    for attention in net.to_vision:
        attention.register_forward_hook(lambda *given: seen.append(given[2]["position"]), with_kwargs=True)
    net(image(size=(50, 70)), tokens=sentence(4))
    for places, stride, width in zip(seen, STRIDES, (8, 16, 32, 64), strict=True):
        expected = sine_positions((64 // stride, 96 // stride), (stride / 50, stride / 70), width)
        assert torch.equal(places, expected)


def test_logits_are_fresh() -> None:
    net = tiny_tmc().eval()
    first = net(image())
    kept = first.clone()
    net(image().flip(2))
    assert torch.equal(first, kept) and first.untyped_storage().size() == first.numel() * first.element_size()


@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
@pytest.mark.parametrize("ablation", ["pixel", "no text", "no cross attention"])
def test_feature_map_size_is_what_the_layers_put_out(size: tuple[int, int], ablation: str) -> None:
    options = ABLATIONS[ablation]
    net = tiny_tmc(**options, swin_depths=(2, 2, 2, 2), bert_split=(2, 1, 1, 1))
    sizes: list[int] = []
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
    tokens = sentence(4, length=32)
    if net.text is None:
        net(image(size=size, batch=1))
    else:
        net(image(size=size, batch=1), tokens=tokens, return_alignment=True)
    pixels = 64 * 96 if size == (50, 70) else 64 * 64
    # First convolutions upwards are functional: two outputs, of the doubled features and of the skip.
    sizes += [2 * a * pixels // 4**i for i, a in enumerate(net.double_u.above)]
    assert net.compute_conv_feature_map_size(size) == pytest.approx(sum(sizes), rel=0.15)


# ---- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "shape"),
    [(torch.zeros(3, 8).long(), "3, 8"), (torch.zeros(2, 33).long(), "2, 33"), (torch.zeros(8).long(), "8")],
)
def test_tokens_that_do_not_fit(tokens: Tensor, shape: str) -> None:
    with pytest.raises(ValueError, match=rf"tokens of shape \({shape},?\): there must be 1 or 2 rows of 1 to 32"):
        tiny_tmc()(image(), tokens=tokens)


def test_a_sentence_of_padding_alone_is_finite() -> None:
    assert open_gates(tiny_tmc())(image(), tokens=torch.zeros(1, 8).long()).isfinite().all()


def test_networks_and_calls_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="align_mode='none' with cross_attention=False: text has no effect"):
        tiny_tmc(align_mode="none", cross_attention=False)
    with pytest.raises(ValueError, match="align_mode='clip'"):
        tiny_tmc(align_mode="clip")
    with pytest.raises(ValueError, match="default prompt has 33 tokens; there must be 1 to 32"):
        tiny_tmc(default_prompt=[CLS] * 33)
    with pytest.raises(ValueError, match="built without alignment"):
        tiny_tmc(align_mode="none")(image(), return_alignment=True)
    with pytest.raises(ValueError, match=r"TMC is for 2D images .* of shape \(1, 1, 8, 8, 8\)"):
        tiny_tmc()(torch.zeros(1, 1, 8, 8, 8))


def test_without_text_prompts_are_not_read() -> None:
    net = tiny_tmc(**ABLATIONS["no text"]).eval()
    net.select_prompts(sentence(4))
    assert torch.equal(net(image()), net(image(), tokens=sentence(5)))
    assert "default_prompt" not in net.state_dict() and DEFAULT == (CLS, SEP)
