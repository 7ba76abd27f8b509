"""Settings of `TMCTrainer` (Chen & Pan, Text-guided multi-stage cross-perception network, arXiv 2506.07475)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from nnunet_ext.settings.base import Settings, bounded, choice, described
from nnunet_ext.utilities.errors import UsageError

NUM_STAGES = 4
PADDING_WORD = "[PAD]"
TOKEN_HEADS = 8


@dataclass(frozen=True)
class TMCSettings(Settings):
    """Defaults are the recommended reading, `TMCSettings.paper()` the literal one."""

    trainer: ClassVar[str] = "TMCTrainer"

    # Optimisation: one rate for what starts from pre-trained weights, one for the rest.
    initial_lr: float = bounded(3e-4, 1e-12, 1e3, help="learning rate at the start of the poly decay, of new parts")
    pretrained_lr: float = bounded(3e-5, 0, 1e3, help="the same, of parts that start from swin_weights or bert_weights")
    weight_decay: float = bounded(1e-2, 0, 1, help="weight decay of the optimiser")
    optimizer: str = choice("adamw", ("adamw", "adam"), help="AdamW, or Adam, LViT's (the paper does not say)")
    mirror_axes: tuple[int, ...] | None = bounded(
        (),
        0,
        1,
        help="axes mirrored in training and at prediction; []: no mirroring; null: both. Sentences speak of sides, so"
        " mirroring needs flip_words",
    )
    flip_words: bool = described(False, "where an image is mirrored, swap left/right and upper/lower in its sentence")

    # Vision: Swin Transformer, and the double U that its features enter. Defaults: Swin-T, LViT.
    swin_width: int = bounded(96, 4, help="channels of the first Swin stage; each further one has twice as many")
    swin_depths: tuple[int, ...] = bounded((2, 2, 6, 2), 1, help="blocks of the 4 Swin stages")
    swin_heads: tuple[int, ...] = bounded((3, 6, 12, 24), 1, help="attention heads of the 4 Swin stages")
    swin_window: int = bounded(7, 2, 64, help="edge of a Swin window, tokens")
    swin_weights: str | None = described(None, "local file or folder of Swin weights in timm's format; null: random")
    cnn_width: int = bounded(64, 8, help="channels of the double U at full resolution, a multiple of 8")
    token_depth: int = bounded(1, 1, help="Transformer blocks of the double U's token path per stage")

    # Language: BERT, whose layers advance with the Swin stages. Defaults: BERT-base.
    bert_width: int = bounded(768, 4, help="width of a token")
    bert_heads: int = bounded(12, 1, help="attention heads of a BERT layer")
    bert_intermediate: int = bounded(3072, 4, help="hidden width of a BERT layer's MLP")
    bert_split: tuple[int, ...] = bounded((3, 3, 3, 3), 1, help="BERT layers of the 4 stages (CrossVLT: [6,1,1,1])")
    bert_weights: str | None = described(
        None, "local folder of a BERT: config.json, vocab.txt, model.safetensors or pytorch_model.bin; null: random"
    )
    bert_frozen_layers: int | None = bounded(
        None,
        0,
        help="freeze the embeddings and so many first layers; null: the embeddings with bert_weights, nothing without",
    )
    token_length: int = bounded(32, 32, 512, help="tokens of a sentence, [CLS] and [SEP] included; longer is an error")
    vocabulary: tuple[str, ...] | None = described(
        None, "filled in from bert_weights or the data set's sentences: the words, in order of their token ids"
    )

    # Sentences.
    default_prompt: str = described("", "the sentence of an image that has none")
    prompts_sha256: str | None = described(None, "filled in from the sentences of the run: their hash")
    prompt_dropout: float = bounded(
        0.15, 0, 1, help="probability that an image is trained with the default prompt in place of its sentence"
    )

    # Alignment of text and image.
    align_mode: str = choice(
        "pixel",
        ("pixel", "siglip", "literal", "none"),
        help="sentence against each pixel; against the images of the batch; the formula as printed, which drives them"
        " apart; no alignment",
    )
    align_weight: float = bounded(1.0, 0, 1e6, help="lambda of L = L_task + lambda L_align")
    align_width: int = bounded(256, 1, help="D, width of the space in which text and image are compared")
    initial_temperature: float = bounded(0.07, 0.01, 100, help="tau of every stage at the start; it is learned")

    # Ablations of Table 2.
    no_cross_attention: bool = described(False, "without MCM: text acts through the alignment alone")
    no_text: bool = described(False, "without text: Swin and double U alone")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("swin_depths", "swin_heads", "bert_split"):
            if len(getattr(self, name)) != NUM_STAGES:
                raise UsageError(f"{self._label(name)} must have {NUM_STAGES} elements")
        self._check_widths()
        self._check_text()
        if self.mirror_axes != () and not (self.flip_words or self.no_text):
            raise UsageError(
                f"{self._label('mirror_axes')} would make sentences about sides wrong; set flip_words=true, or"
                " mirror_axes=[]"
            )

    def _check_widths(self) -> None:
        for stage, heads in enumerate(self.swin_heads):
            width = self.swin_width * 2**stage
            if width % heads:
                raise UsageError(
                    f"{self._label('swin_heads')}: {heads} heads do not divide the {width} channels of their stage"
                    f" (swin_width={self.swin_width})"
                )
        if self.bert_width % self.bert_heads:
            raise UsageError(f"{self._label('bert_heads')} does not divide bert_width={self.bert_width}")
        if self.cnn_width % TOKEN_HEADS:
            raise UsageError(f"{self._label('cnn_width')} is not a multiple of {TOKEN_HEADS}")

    def _check_text(self) -> None:
        if self.bert_frozen_layers is not None and self.bert_frozen_layers > sum(self.bert_split):
            raise UsageError(
                f"{self._label('bert_frozen_layers')}: there are only {sum(self.bert_split)} layers"
                f" (bert_split={list(self.bert_split)})"
            )
        if self.vocabulary is not None and self.vocabulary[:1] != (PADDING_WORD,):
            raise UsageError(
                f"{self.trainer} setting vocabulary starts with {list(self.vocabulary[:1])!r}, not with {PADDING_WORD}:"
                " token 0 is the padding"
            )
        if self.no_cross_attention and self.align_mode == "none" and not self.no_text:
            raise UsageError(
                f"{self.trainer} settings no_cross_attention=True and align_mode='none' leave nothing for the text to"
                " do; say no_text=true"
            )

    def _label(self, name: str) -> str:
        value = getattr(self, name)
        return f"{self.trainer} setting {name}={list(value) if isinstance(value, tuple) else value!r}"

    @classmethod
    def paper(cls) -> TMCSettings:
        """The text of the paper: its printed alignment loss, one learning rate, its sentences always."""
        return cls(align_mode="literal", optimizer="adam", pretrained_lr=3e-4, prompt_dropout=0.0)

    @classmethod
    def literal(cls) -> dict[str, Any]:
        """`paper()` as overrides."""
        return cls.paper().changed()

    @property
    def alignment(self) -> str:
        """`align_mode`; ``none`` where there is no text to align."""
        return "none" if self.no_text else self.align_mode

    @property
    def frozen_layers(self) -> int | None:
        """The embeddings and so many first BERT layers are frozen; None: nothing is."""
        if self.bert_frozen_layers is None:
            return None if self.bert_weights is None else 0
        return self.bert_frozen_layers

    def replace(self, **changes: object) -> TMCSettings:
        """A checked copy with `changes`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
