"""The TMC network (Chen & Pan, Text-guided multi-stage cross-perception network, arXiv 2506.07475, Fig. 1).

A Swin Transformer and a BERT advance together in four stages, and cross attention between them makes the input of the
next one. A double U-Net takes in the fused features of all stages. 2D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.tmc_alignment import Alignment, StageAlignment
from nnunet_ext.architectures.tmc_cross_attention import CrossAttention
from nnunet_ext.architectures.tmc_double_u import DoubleU
from nnunet_ext.architectures.tmc_position import sine_positions
from nnunet_ext.architectures.tmc_swin import NUM_STAGES, STRIDES, SwinStages
from nnunet_ext.architectures.tmc_text import PADDING, TextStages, token_mask

ALIGN_MODES = ("pixel", "siglip", "literal", "none")
INITIAL_BIAS = {"pixel": 0.0, "siglip": -10.0}  # of SigLIP; the printed formula has none


class TMCNet(nn.Module):
    """`swin`, `text`, cross attention `to_vision` and `to_text`, heads of the `alignment`, and `double_u`.

    Args:
        input_channels, num_classes: of image and logits.
        default_prompt: token ids, [CLS] first, of the sentence of an image that has none.
        vocabulary_size, token_length, bert_width, bert_heads, bert_intermediate, bert_split, frozen_layers: see
            `TextStages`.
        swin_width, swin_depths, swin_heads, swin_window: see `SwinStages`.
        cnn_width, token_depth: see `DoubleU`.
        align_mode: ``pixel``, ``siglip``, ``literal``, or ``none``: no heads.
        align_width: D, of the space in which text and image are compared.
        initial_temperature: tau at the start.
        cross_attention: False: text acts through the alignment alone.
        with_text: False: `swin` and `double_u` alone; what concerns text is not read.

    Attributes:
        alignment_scale: (4,) log of 1 / tau, learned; None without alignment.
        alignment_bias: (4,), learned; None without alignment and where it is ``literal``.

    Raises:
        ValueError: text that nothing would learn from, another `align_mode`, or a default prompt that is too long.
    """

    default_prompt: Tensor

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        vocabulary_size: int,
        default_prompt: Sequence[int],
        token_length: int = 32,
        swin_width: int = 96,
        swin_depths: Sequence[int] = (2, 2, 6, 2),
        swin_heads: Sequence[int] = (3, 6, 12, 24),
        swin_window: int = 7,
        cnn_width: int = 64,
        token_depth: int = 1,
        bert_width: int = 768,
        bert_heads: int = 12,
        bert_intermediate: int = 3072,
        bert_split: Sequence[int] = (3, 3, 3, 3),
        frozen_layers: int | None = None,
        align_mode: str = "pixel",
        align_width: int = 256,
        initial_temperature: float = 0.07,
        cross_attention: bool = True,
        with_text: bool = True,
    ) -> None:
        super().__init__()
        if align_mode not in ALIGN_MODES or (with_text and not cross_attention and align_mode == "none"):
            raise ValueError(f"align_mode={align_mode!r} with cross_attention={cross_attention}: text has no effect")
        self.token_length = token_length
        self.prompts: Tensor | None = None
        self.swin = SwinStages(
            input_channels, width=swin_width, depths=swin_depths, heads=swin_heads, window=swin_window
        )
        self.double_u = DoubleU(
            input_channels, num_classes, width=cnn_width, feature_widths=self.swin.widths, token_depth=token_depth
        )
        self.text: TextStages | None = None
        self.to_vision: Any = nn.ModuleList()
        self.to_text: Any = nn.ModuleList()
        self.alignment: Any = nn.ModuleList()
        self.alignment_scale: nn.Parameter | None = None
        self.alignment_bias: nn.Parameter | None = None
        if not with_text:
            return
        self.register_buffer("default_prompt", _padded_prompt(default_prompt, token_length))
        self.text = TextStages(
            vocabulary_size=vocabulary_size,
            token_length=token_length,
            width=bert_width,
            heads=bert_heads,
            intermediate=bert_intermediate,
            split=bert_split,
            frozen_layers=frozen_layers,
        )
        widths = self.swin.widths
        if cross_attention:
            self.to_vision.extend(CrossAttention(c, bert_width, n) for c, n in zip(widths, swin_heads, strict=True))
            # No stage follows the last one, so nothing would read its text.
            self.to_text.extend(CrossAttention(bert_width, c, bert_heads) for c in widths[:-1])
        if align_mode == "none":
            return
        self.alignment.extend(StageAlignment(c, bert_width, align_width) for c in widths)
        self.alignment_scale = nn.Parameter(torch.full((NUM_STAGES,), -math.log(initial_temperature)))
        if align_mode in INITIAL_BIAS:
            self.alignment_bias = nn.Parameter(torch.full((NUM_STAGES,), INITIAL_BIAS[align_mode]))

    def select_prompts(self, tokens: Tensor | None) -> None:
        """From now on the sentences of images that come without: (B or 1, T) int64; None: the default prompt. Belongs
        to the object, not to its weights."""
        self.prompts = tokens

    def forward(self, x: Tensor, *, tokens: Tensor | None = None, return_alignment: bool = False) -> Any:
        """Segment `x`.

        Args:
            x: (B, input_channels, H, W) of any size; padded inside to multiples of 32 by repeating its last row and
                column.
            tokens: (B or 1, T) int64, T <= token_length, 0 is padding; one sentence is that of all images. None:
                `prompts` if selected, else `default_prompt`. Not read without text.
            return_alignment: also return what the alignment losses compare.

        Returns: logits (B, num_classes, H, W), a tensor of its own; with `return_alignment` the pair of these and
        `Alignment`.

        Raises:
            ValueError: sizes that do not fit, or an alignment that the network has no heads for.
        """
        if return_alignment and not self.alignment:
            raise ValueError("this network was built without alignment")
        size = x.shape[2:]
        x = _padded_image(x)
        language: Tensor | None = None
        mask: Tensor | None = None
        if self.text is not None and (return_alignment or self.to_vision):
            language = self._sentences(tokens, x)
            mask = token_mask(language)
        features, alignment = self._encode(x, language, mask, size, return_alignment)
        logits = self.double_u(x, features)[..., : size[0], : size[1]].contiguous()
        return (logits, alignment) if return_alignment else logits

    def _encode(
        self, x: Tensor, language: Tensor | None, mask: Tensor | None, size: Sequence[int], align: bool
    ) -> tuple[list[Tensor], Alignment]:
        """F_1..F_4, each (B, H_i, W_i, C_i), and the alignment, empty unless `align`.

        x: the padded image, of which the first H x W = `size` pixels are the image itself.
        language: tokens (B, T), then L_i^F; None: no text.
        """
        features, alignment = [], Alignment([], [], [])
        for stage, stride in enumerate(STRIDES):
            x = self.swin(stage, x)
            if self.text is not None and language is not None and mask is not None:
                language = self.text(stage, language, mask)
                if align:
                    cells = [math.ceil(pixels / stride) for pixels in size]
                    compared = self.alignment[stage](x, language[:, 0], cells)
                    for entries, entry in zip(alignment, compared, strict=True):
                        entries.append(entry)
                if self.to_vision:
                    cell = [stride / pixels for pixels in size]
                    x, language = self._fuse(stage, x, language, mask, cell)
            features.append(x)
        return features, alignment

    def _fuse(
        self, stage: int, vision: Tensor, language: Tensor, mask: Tensor, cell: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """F_V and F_L of a stage; after the last one, F_L is L. `cell`: see `sine_positions`."""
        places = sine_positions(vision.shape[1:3], cell, vision.shape[3], device=vision.device)
        tokens = self.to_vision[stage](vision.flatten(1, 2), language, mask=mask, position=places)  # B, H_i W_i, C_i
        if stage < len(self.to_text):
            language = self.to_text[stage](language, tokens, context_position=places)
        return tokens.view_as(vision), language

    def _sentences(self, tokens: Tensor | None, x: Tensor) -> Tensor:
        """(B, T), one row for each image of `x`."""
        if tokens is None:
            tokens = self.default_prompt if self.prompts is None else self.prompts
        if tokens.ndim != 2 or tokens.shape[0] not in (1, len(x)) or not 1 <= tokens.shape[1] <= self.token_length:
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)}: there must be 1 or {len(x)} rows of 1 to {self.token_length}"
            )
        return tokens.to(x.device).expand(len(x), -1)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Number of values in the outputs of convolutions and linear layers in one training forward of one image and
        the longest sentence, by which nnU-Net estimates GPU memory.

        input_size: height and width of the image.
        """
        size = [math.ceil(pixels / STRIDES[-1]) * STRIDES[-1] for pixels in input_size]
        total = self.double_u.compute_feature_map_size(size) + self.swin.compute_feature_map_size(size)
        if self.text is not None:
            total += self.text.compute_feature_map_size(self.token_length)
        for stage, stride in enumerate(STRIDES):
            cells = math.prod(size) // stride**2
            if self.to_vision:
                total += self.to_vision[stage].compute_feature_map_size(cells, self.token_length)
            if stage < len(self.to_text):
                total += self.to_text[stage].compute_feature_map_size(self.token_length, cells)
            if self.alignment:
                total += self.alignment[stage].vision.out_features * cells
        return total


def _padded_prompt(prompt: Sequence[int], length: int) -> Tensor:
    """(1, length)."""
    if not 1 <= len(prompt) <= length:
        raise ValueError(f"the default prompt has {len(prompt)} tokens; there must be 1 to {length}")
    return torch.tensor([[*prompt, *[PADDING] * (length - len(prompt))]])


def _padded_image(x: Tensor) -> Tensor:
    """(B, C, H, W) -> both sizes the next multiples of the last stage's stride, by repeating the last row and column.

    Raises:
        ValueError: not 2D.
    """
    if x.ndim != 4:
        raise ValueError(f"TMC is for 2D images (B, C, H, W), not for a tensor of shape {tuple(x.shape)}")
    bottom, right = (-pixels % STRIDES[-1] for pixels in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
