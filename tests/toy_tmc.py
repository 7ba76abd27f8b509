"""A TMC network as small as it gets, and sentences for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ext.architectures.tmc import TMCNet

PAD, UNK, CLS, SEP = range(4)
VOCABULARY_SIZE = 12
DEFAULT = (CLS, SEP)


def tiny_tmc(channels: int = 1, classes: int = 2, seed: int = 0, **options: Any) -> TMCNet:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocabulary_size": VOCABULARY_SIZE,
        "default_prompt": DEFAULT,
        "swin_width": 8,
        "swin_depths": (1, 1, 1, 1),
        "swin_heads": (1, 1, 2, 2),
        "swin_window": 4,
        "cnn_width": 8,
        "bert_width": 16,
        "bert_heads": 2,
        "bert_intermediate": 32,
        "bert_split": (1, 1, 1, 1),
        "align_width": 8,
    }
    return TMCNet(channels, classes, **{**sizes, **options})


def sentence(*words: int, length: int = 8) -> Tensor:
    """(1, length): [CLS] words [SEP] and padding."""
    row = [CLS, *words, SEP]
    return torch.tensor([row + [PAD] * (length - len(row))])


def image(channels: int = 1, size: tuple[int, int] = (32, 64), batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def open_gates(net: TMCNet) -> TMCNet:
    """As after training: the layers that start at zero are not."""
    generator = torch.Generator().manual_seed(2)
    for attention in (*net.to_vision, *net.to_text):
        for parameter in attention.mlp[-1].parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)
    return net
