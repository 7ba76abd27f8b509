"""Language stages: transformers' own BERT in pieces, and sentences that are encoded once."""

import copy
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_tmc import CLS, PAD, SEP, VOCABULARY_SIZE, sentence
from transformers import BertConfig, BertModel

from nnunet_ext.architectures import tmc_text
from nnunet_ext.architectures.tmc_text import TextStages, token_mask
from nnunet_ext.architectures.tmc_weights import load_bert_weights


def stages(frozen_layers: int | None = None, split: tuple[int, ...] = (2, 1, 1, 1)) -> TextStages:
    torch.manual_seed(0)
    return TextStages(
        vocabulary_size=VOCABULARY_SIZE,
        token_length=8,
        width=16,
        heads=2,
        intermediate=32,
        split=split,
        frozen_layers=frozen_layers,
    )


def run(text: TextStages, tokens: Tensor) -> list[Tensor]:
    outputs, x = [], tokens
    for stage in range(len(text.split)):
        x = text(stage, x, token_mask(tokens))
        outputs.append(x)
    return outputs


class Calls:
    """How many BERT layers have run."""

    def __init__(self, text: TextStages) -> None:
        self.count = 0
        for layer in text.layers:
            layer.register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


SENTENCES = torch.cat([sentence(4, 5, 6), sentence(7)])


def test_the_stages_are_transformers_bert() -> None:
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=16,
        num_hidden_layers=5,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    torch.manual_seed(1)
    bert = BertModel(config).eval()
    text = stages().eval()
    report = load_bert_weights(text, bert.state_dict())
    assert report.left == [] and all(name.startswith("pooler.") for name in report.skipped)
    with torch.no_grad():
        output = bert(SENTENCES, attention_mask=(SENTENCES != PAD).long(), output_hidden_states=True)
        ours = run(text, SENTENCES)
    for stage, layers_so_far in enumerate((2, 3, 4, 5)):
        expected = output.hidden_states[layers_so_far][SENTENCES != PAD]
        torch.testing.assert_close(ours[stage][SENTENCES != PAD], expected, atol=1e-5, rtol=1e-4)


def test_no_weight_is_downloaded_or_left_unset() -> None:
    text = stages()
    assert all(p.isfinite().all() for p in text.parameters())
    assert not text.embeddings.word_embeddings.weight[PAD].any()
    assert 0.015 < text.layers[0].intermediate.dense.weight.std() < 0.025, "BERT's start, not PyTorch's"


def test_a_frozen_sentence_is_encoded_once() -> None:
    text = stages(frozen_layers=2)
    calls = Calls(text)
    first = text(0, SENTENCES, token_mask(SENTENCES))
    assert calls.count == 2 and not first.requires_grad
    assert torch.equal(text(0, SENTENCES.flip(0), token_mask(SENTENCES).flip(0)), first.flip(0)) and calls.count == 2
    text(0, torch.cat([SENTENCES, sentence(9)]), token_mask(torch.cat([SENTENCES, sentence(9)])))
    assert calls.count == 4, "only the new sentence"
    assert not any("sentence" in name for name in text.state_dict())


def test_a_cached_sentence_is_the_right_one() -> None:
    text = stages(frozen_layers=2)
    expected = stages().eval()
    for tokens in (SENTENCES, SENTENCES.flip(0), torch.cat([sentence(7), sentence(9), sentence(7)])):
        ours, theirs = text.encode_frozen(tokens), expected(0, tokens, token_mask(tokens))
        assert torch.allclose(ours[tokens != PAD], theirs[tokens != PAD], atol=1e-6)


@pytest.mark.parametrize("frozen_layers", [None, 0, 1])
def test_nothing_is_cached_while_the_first_stage_learns(frozen_layers: int | None) -> None:
    text = stages(frozen_layers)
    calls = Calls(text)
    for _ in range(2):
        assert text(0, SENTENCES, token_mask(SENTENCES)).requires_grad
    assert calls.count == 4


def test_loading_forgets_through_any_parent() -> None:
    text, other = stages(frozen_layers=2), stages(frozen_layers=2)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1)
    before = text.encode_frozen(SENTENCES)
    nn.ModuleDict({"text": text}).load_state_dict(nn.ModuleDict({"text": other}).state_dict())
    after = text.encode_frozen(SENTENCES)
    assert torch.equal(after, other.encode_frozen(SENTENCES)) and not torch.allclose(before, after)


def test_moving_forgets() -> None:
    text = stages(frozen_layers=2)
    text.encode_frozen(SENTENCES)
    assert text.double().encode_frozen(SENTENCES).dtype == torch.float64


def test_a_copy_has_a_cache_of_its_own() -> None:
    text = stages(frozen_layers=2)
    text.encode_frozen(SENTENCES)
    other = copy.deepcopy(text)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(other.state_dict())
    assert not other.encode_frozen(SENTENCES).any() and text.encode_frozen(SENTENCES).any()


def test_the_cache_is_bounded_and_keeps_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tmc_text, "CACHED_SENTENCES", 2)
    text = stages(frozen_layers=2)
    calls = Calls(text)
    for word, expected in ((4, 2), (5, 4), (4, 4), (6, 6), (4, 6), (5, 8)):
        text.encode_frozen(sentence(word))
        assert calls.count == expected
    assert text.encode_frozen(torch.cat([sentence(word) for word in (6, 7, 8)])).shape == (3, 8, 16), (
        "more than it holds"
    )


def test_what_prediction_cached_serves_training() -> None:
    text = stages(frozen_layers=2)
    with torch.inference_mode():
        text.encode_frozen(SENTENCES.clone())
    run(text, SENTENCES)[-1].sum().backward()
    assert text.layers[-1].output.dense.weight.grad is not None


def test_cached_sentences_are_exact_under_autocast() -> None:
    exact = stages(frozen_layers=2).encode_frozen(SENTENCES)
    with torch.autocast("cpu", torch.bfloat16):
        cached = stages(frozen_layers=2).encode_frozen(SENTENCES)
    assert cached.dtype == torch.float32 and torch.equal(cached, exact)


def test_frozen_layers_drop_nothing_out() -> None:
    text = stages(frozen_layers=1).train()
    assert text.training and not text.embeddings.training and not text.layers[0].training and text.layers[1].training
    assert {name.split(".")[0] for name, p in text.named_parameters() if not p.requires_grad} == {
        "embeddings",
        "layers",
    }
    assert all(p.requires_grad == (i >= 1) for i, layer in enumerate(text.layers) for p in layer.parameters())
    assert stages(frozen_layers=0).embeddings.training is False and all(p.requires_grad for p in stages().parameters())


def test_the_mask_leaves_one_token_to_attend_to() -> None:
    tokens = torch.tensor([[CLS, 4, SEP, PAD], [PAD] * 4])
    assert token_mask(tokens).tolist() == [[True, True, True, False], [True, False, False, False]]


def test_without_transformers_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"text needs transformers .*; run: pip install 'nnunet_ext\[text\]'"):
        stages()
