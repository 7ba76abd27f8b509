"""Text-guided multi-stage cross-perception (Chen & Pan, arXiv 2506.07475): a sentence per image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunet_ext.architectures.tmc import TMCNet
from nnunet_ext.architectures.tmc_alignment import Alignment
from nnunet_ext.architectures.tmc_swin import STRIDES
from nnunet_ext.data.prompt_tables import read_rows
from nnunet_ext.data.prompts import Prompts, match_prompts, normalised, prompts_file
from nnunet_ext.data.tokenizer import SPECIAL_WORDS, Tokenizer, build_vocabulary, read_vocabulary
from nnunet_ext.losses.alignment import alignment_loss, scale
from nnunet_ext.settings.tmc import TMCSettings
from nnunet_ext.trainers.base import ExtensionTrainer
from nnunet_ext.trainers.host_unet import require_images_only
from nnunet_ext.trainers.inspection import NetworkReport, inspect_network
from nnunet_ext.trainers.tmc_sentences import Sentences, foreground, mirror
from nnunet_ext.trainers.tmc_weights_files import load_text, load_vision
from nnunet_ext.utilities.errors import UsageError

ROTATION = 15 / 180 * math.pi
"""Largest rotation in training, radians: sides keep their names."""
BERT_WORDS = 30522
"""Vocabulary of the paper's BERT-base, for its size alone."""


class PolyOfGroups(PolyLRScheduler):  # type: ignore[misc]
    """The host's decay, for groups whose learning rate is the key ``share`` times the others'."""

    def step(self, current_step: int | None = None) -> None:
        """As the host's."""
        super().step(current_step)
        for group in self.optimizer.param_groups:
            group["lr"] *= group.get("share", 1.0)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class TMCTrainer(ExtensionTrainer[TMCSettings]):
    """Each iteration: images with their sentences, nnU-Net's loss, and the alignment of both in each stage."""

    settings_class = TMCSettings
    dataset_class: Any
    fixed_settings = ("vocabulary", "token_length", "default_prompt", "no_text", "no_cross_attention", "align_mode")

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host's own default)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.sentences: Sentences | None = None
        self._mirrored: tuple[int, ...] = ()

    # ---- settings and network -----------------------------------------------------------------------------------

    @classmethod
    def resolve_settings(cls, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str) -> TMCSettings:  # noqa: ARG003
        """The settings in the plans, completed by the vocabulary, so that prediction needs neither the sentences nor
        the folder of a BERT, and by what tells these sentences from others."""
        settings = TMCSettings.from_plans(plans)
        require_images_only(cls.__name__, plans, configuration)
        require_2d(cls.__name__, plans, configuration)
        if settings.no_text:
            return settings
        rows = {name: normalised(sentence) for name, sentence in read_rows(prompts_file(plans["dataset_name"]))}
        words = settings.vocabulary
        if words is None and settings.bert_weights is not None:
            words = read_vocabulary(settings.bert_weights)
        if words is None:
            words = build_vocabulary([*rows.values(), settings.default_prompt])
        return settings.replace(vocabulary=words, prompts_sha256=Prompts(rows, ()).sha256)

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,  # noqa: ARG004
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,  # noqa: ARG004
    ) -> nn.Module:
        """The network that the settings describe, whatever the plan's own; the same at training and at prediction."""
        return build_tmc_network(TMCSettings.from_plans(plans_manager.plans), num_input_channels, num_output_channels)

    @classmethod
    def inspection_inputs(
        cls, settings: TMCSettings, patch_size: Sequence[int], channels: int
    ) -> dict[str, dict[str, Tensor]]:
        """Prediction with the longest sentence."""
        inputs = {"x": torch.empty(1, channels, *patch_size)}
        if not settings.no_text:
            inputs["tokens"] = torch.ones(1, settings.token_length, dtype=torch.int64)
        return {"image and sentence": inputs}

    @classmethod
    def inspect_paper(cls, num_image_classes: int | None = None) -> NetworkReport:  # noqa: ARG003
        """Swin-T and BERT-base at 224 x 224, three channels, one class."""
        settings = TMCSettings(vocabulary=tuple(f"[{i}]" if i else "[PAD]" for i in range(BERT_WORDS)))
        network = build_tmc_network(settings, 3, 1, default_prompt=(1, 2))
        return inspect_network(cls.__name__, network, cls.inspection_inputs(settings, (224, 224), 3))

    @property
    def tmc_network(self) -> TMCNet:
        """The network without wrappers."""
        return cast(TMCNet, self.bare_network)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """There is none."""

    # ---- start --------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """As the host; then reads the sentences of all cases.

        Raises:
            UsageError: no sentences are linked, or some are unusable.
        """
        super().initialize()
        if self.settings.no_text:
            return
        file = prompts_file(self.plans_manager.dataset_name)
        cases = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        prompts = match_prompts(read_rows(file), cases, str(file), self.settings.default_prompt)
        vocabulary = cast(Sequence[str], self.settings.vocabulary)
        self.sentences = Sentences(prompts, Tokenizer(vocabulary, self.settings.token_length))
        self.print_to_log_file(
            f"{len(prompts.sentences)} sentences, {len(prompts.missing)} cases with the default prompt"
            f" {prompts.default!r}"
        )

    def on_train_start(self) -> None:
        """As the host; a new run then starts from `swin_weights` and `bert_weights`, if any."""
        resumed = self._resume is not None
        super().on_train_start()
        if resumed:
            return
        network = self.tmc_network
        if self.settings.swin_weights is not None:
            self.print_to_log_file(f"Swin: {load_vision(network.swin, self.settings.swin_weights)}")
        if self.settings.bert_weights is not None and network.text is not None:
            self.print_to_log_file(f"BERT: {load_text(network.text, self.settings.bert_weights)}")

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """AdamW or Adam: parts with pre-trained weights at `pretrained_lr`; no decay of the alignment's temperature."""
        settings, network = self.settings, self.tmc_network
        pretrained: list[nn.Module] = [network.swin] if settings.swin_weights is not None else []
        pretrained += [network.text] if settings.bert_weights is not None and network.text is not None else []
        slow = {id(p) for part in pretrained for p in part.parameters()}
        learned = {id(p) for p in (network.alignment_scale, network.alignment_bias)}
        parameters = [p for p in network.parameters() if p.requires_grad]
        share = settings.pretrained_lr / settings.initial_lr
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if id(p) not in slow | learned], "share": 1.0},
            {"params": [p for p in parameters if id(p) in slow], "share": share},
            {"params": [p for p in parameters if id(p) in learned], "share": 1.0, "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        groups = [group for group in groups if group["params"]]
        optimizer = kind(groups, self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyOfGroups(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802  (the host's name)
        """As the host with small rotations, also without text, so that this ablation differs in text alone. With text,
        mirroring is in training alone and by ourselves, who must turn the sentence too."""
        _, dummy_2d, _, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        rotation = (-ROTATION, ROTATION)
        size = get_patch_size(self.configuration_manager.patch_size, *[rotation] * 3, (0.85, 1.25))
        if self.settings.no_text:
            return rotation, dummy_2d, size, axes
        self._mirrored = tuple(axes or ())
        self.inference_allowed_mirroring_axes = None  # the sentence of a prediction is that of the image as it is
        return rotation, dummy_2d, size, None

    # ---- one step -----------------------------------------------------------------------------------------------

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """nnU-Net's loss, and lambda times the mean alignment of the stages."""
        data, target = self.to_device(batch["data"]), self.to_device(batch["target"])
        if self.sentences is None:
            yield "segmentation", self.loss(self.network(data), target)
            return
        texts = self.sentences.of(batch["keys"], self.settings.prompt_dropout)
        data, target, texts = mirror(data, target, texts, self._mirrored)
        tokens = self.to_device(self.sentences.tokens(texts))
        if self.settings.alignment == "none":
            yield "segmentation", self.loss(self.network(data, tokens=tokens), target)
            return
        logits, alignment = self.network(data, tokens=tokens, return_alignment=True)
        aligned = self.settings.align_weight * self._alignment(alignment, tokens, target)
        segmentation = self.loss(logits, target)
        del logits, alignment
        # One graph for both, gone after one backward pass: the first carries all gradients.
        yield "segmentation", segmentation + (aligned - aligned.detach())
        yield "alignment", aligned.detach().requires_grad_()

    def _alignment(self, alignment: Alignment, tokens: Tensor, target: Tensor) -> Tensor:
        """L_align."""
        network = self.tmc_network
        meant, valid = foreground(target, self.label_manager)
        return alignment_loss(
            self.settings.alignment,
            **alignment._asdict(),
            tokens=tokens,
            target=meant,
            log_scales=cast(Tensor, network.alignment_scale),
            biases=network.alignment_bias,
            strides=STRIDES,
            valid=valid,
        )

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As the host, each image with its own sentence."""
        with self._prompted(batch["keys"]):
            result: dict[str, Any] = super().validation_step(batch)
            return result

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As the host, which loads each case right before it predicts it: that is when its sentence is selected."""
        plain, select = self.dataset_class, self._select

        class Prompted(plain):  # type: ignore[misc, valid-type]
            def load_case(self, identifier: str) -> Any:
                select([identifier])
                return super().load_case(identifier)

        self.dataset_class = Prompted
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.dataset_class = plain
            self.tmc_network.select_prompts(None)

    def epoch_values(self) -> dict[str, float]:
        """1 / tau of every stage."""
        learned = self.tmc_network.alignment_scale
        if learned is None:
            return {}
        return {f"temperature/{i + 1}": 1 / value for i, value in enumerate(scale(learned.detach()).tolist())}

    @contextmanager
    def _prompted(self, cases: Sequence[str]) -> Iterator[None]:
        self._select(cases)
        try:
            yield
        finally:
            self.tmc_network.select_prompts(None)

    def _select(self, cases: Sequence[str]) -> None:
        if self.sentences is not None:
            self.tmc_network.select_prompts(self.to_device(self.sentences.tokens(self.sentences.of(cases))))


def build_tmc_network(
    settings: TMCSettings,
    num_input_channels: int,
    num_output_channels: int,
    default_prompt: Sequence[int] | None = None,
) -> TMCNet:
    """`TMCNet` as the settings say; its default prompt is theirs unless given as token ids. As long as they have no
    vocabulary, a network without words: planning asks it for its feature maps.

    Raises:
        UsageError: the extra ``text`` is not installed.
    """
    words = settings.vocabulary or SPECIAL_WORDS
    if not settings.no_text and default_prompt is None:
        default_prompt = Tokenizer(words, settings.token_length).ids(settings.default_prompt)
    try:
        return TMCNet(
            num_input_channels,
            num_output_channels,
            vocabulary_size=len(words),
            default_prompt=default_prompt or (),
            token_length=settings.token_length,
            swin_width=settings.swin_width,
            swin_depths=settings.swin_depths,
            swin_heads=settings.swin_heads,
            swin_window=settings.swin_window,
            cnn_width=settings.cnn_width,
            token_depth=settings.token_depth,
            bert_width=settings.bert_width,
            bert_heads=settings.bert_heads,
            bert_intermediate=settings.bert_intermediate,
            bert_split=settings.bert_split,
            frozen_layers=settings.frozen_layers,
            align_mode=settings.alignment,
            align_width=settings.align_width,
            initial_temperature=settings.initial_temperature,
            cross_attention=not settings.no_cross_attention,
            with_text=not settings.no_text,
        )
    except ImportError as error:
        raise UsageError(str(error)) from None


def require_2d(trainer: str, plans: dict[str, Any], configuration: str) -> None:
    """Raises UsageError, naming `trainer`, unless the configuration is of 2D images."""
    patch = PlansManager(plans).get_configuration(configuration).patch_size
    if len(patch) != 2:
        raise UsageError(f"{trainer} segments 2D images; patches of -c {configuration} are {list(patch)}; use -c 2d")
