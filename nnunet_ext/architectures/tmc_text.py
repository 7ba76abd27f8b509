"""Language stages of TMC: the layers of a BERT, cut into as many groups as there are vision stages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PADDING = 0
CACHED_SENTENCES = 1024


class TextStages(nn.Module):
    """The embeddings and layers of transformers' BERT, no pooler.

    A sentence is a row of token ids, filled up with `PADDING`; its first token is [CLS]. Nothing attends to padding.

    Args:
        vocabulary_size: number of token ids.
        token_length: longest sentence, tokens.
        width, heads, intermediate: sizes of a layer.
        split: number of layers of each stage.
        frozen_layers: the embeddings and so many first layers learn nothing and drop nothing out; None: all learn.

    If the whole first stage is frozen, its output is computed once for each sentence and kept, outside of the state
    dictionary, until weights are loaded or moved.

    Raises:
        ImportError: transformers is not installed.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        token_length: int,
        width: int,
        heads: int,
        intermediate: int,
        split: Sequence[int],
        frozen_layers: int | None = None,
    ) -> None:
        super().__init__()
        embeddings, layer, configuration = _bert()
        config = configuration(
            vocab_size=vocabulary_size,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=intermediate,
            max_position_embeddings=token_length,
            type_vocab_size=1,  # one sentence
            pad_token_id=PADDING,
            attn_implementation="sdpa",
        )
        self.width, self.intermediate, self.split = width, intermediate, tuple(split)
        self.embeddings = embeddings(config)
        self.layers: Any = nn.ModuleList(layer(config, layer_idx=i) for i in range(sum(split)))
        for module in self.modules():
            _initialise(module)
        self.frozen = [] if frozen_layers is None else [self.embeddings, *self.layers[:frozen_layers]]
        for module in self.frozen:
            module.requires_grad_(False)
        self.first_stage_is_frozen = len(self.frozen) > self.split[0]
        self._sentences: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self.register_load_state_dict_post_hook(_forget_sentences)  # type: ignore[no-untyped-call]
        self.train()

    def forward(self, stage: int, x: Tensor, mask: Tensor) -> Tensor:
        """One stage.

        Args:
            stage: from 0.
            x: stage 0: tokens (B, T) int64; later: the fused features (B, T, width) of the stage before.
            mask: (B, T) bool, see `token_mask`.

        Returns: L of this stage, (B, T, width); rows of padding mean nothing.
        """
        if stage == 0:
            if self.first_stage_is_frozen:
                return self.encode_frozen(x)  # type: ignore[no-any-return]
            x = self.embeddings(x)
        first = sum(self.split[:stage])
        for layer in self.layers[first : first + self.split[stage]]:
            x = layer(x, mask[:, None, None])
        return x

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def encode_frozen(self, tokens: Tensor) -> Tensor:
        """L of the first stage, (B, T, width) fp32 without a gradient, for tokens (B, T); a sentence that was encoded
        before is looked up. Only where the first stage is frozen."""
        rows = [tuple(row) for row in tokens.tolist()]
        with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            found = {row: self._sentences.pop(row) for row in dict.fromkeys(rows) if row in self._sentences}
            missing = [row for row in dict.fromkeys(rows) if row not in found]
            if missing:
                found |= zip(missing, self._encode(torch.tensor(missing, device=tokens.device)), strict=True)
        self._sentences.update(found)  # the latest used come last
        while len(self._sentences) > CACHED_SENTENCES:
            self._sentences.popitem(last=False)
        return torch.stack([found[row] for row in rows])  # new: what prediction cached may serve training

    def _encode(self, tokens: Tensor) -> list[Tensor]:
        mask, x = token_mask(tokens), self.embeddings(tokens)
        for layer in self.layers[: self.split[0]]:
            x = layer(x, mask[:, None, None])
        return [row.clone() for row in x]  # no view: one sentence must not keep its whole batch

    def train(self, mode: bool = True) -> TextStages:
        """As `nn.Module.train`; frozen layers stay as they are at prediction, without dropout."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> TextStages:
        self._sentences.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def compute_feature_map_size(self, num_tokens: int) -> int:
        """Number of values in the outputs of the linear layers for one sentence."""
        return num_tokens * len(self.layers) * (5 * self.width + self.intermediate)


def token_mask(tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T) bool, False for padding. The first token always counts, so that there is one to attend
    to."""
    mask = tokens != PADDING
    mask[:, 0] = True
    return mask


def _bert() -> tuple[Any, Any, Any]:
    """BertEmbeddings, BertLayer and BertConfig."""
    try:
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer
    except ImportError as error:
        raise ImportError(f"text needs transformers ({error}); run: pip install 'nnunet_ext[text]'") from error
    return BertEmbeddings, BertLayer, BertConfig


def _initialise(module: nn.Module) -> None:
    """As BERT starts: normal with standard deviation 0.02, biases and padding 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx] = 0


def _forget_sentences(stages: nn.Module, _: Any) -> None:
    stages._sentences.clear()  # type: ignore[union-attr, operator]
