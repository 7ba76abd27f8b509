"""Settings of `UCITrainer` (Guan et al., Unpaired Cross-Modal Interaction Learning, MICCAI 2023)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from nnunet_ext.settings.base import Settings, bounded, choice, described
from nnunet_ext.utilities.errors import UsageError


@dataclass(frozen=True)
class UCISettings(Settings):
    """Defaults are the recommended reading, `UCISettings.paper()` the literal one (of the authors' code where the
    paper is silent)."""

    trainer: ClassVar[str] = "UCITrainer"

    # Optimisation: AdamW with poly decay.
    initial_lr: float = bounded(1e-4, 1e-12, 1e3, help="learning rate at the start of the poly decay")
    decay_norm_and_bias: bool = described(False, "apply weight decay to norms, biases, embeddings too (authors: yes)")
    xray_loss_weight: float = bounded(1.0, 0, help="weight of the X-ray classification loss")

    # Encoder: two convolutional stem levels, then four Transformer stages.
    features_per_stage: tuple[int, ...] = bounded(
        (32, 64, 128, 256, 320, 320), 1, help="channels: 2 stem levels, 4 stages"
    )
    blocks_per_stage: tuple[int, ...] = bounded((1, 2, 4, 2), 1, help="Transformer blocks of the 4 stages")
    heads_per_stage: tuple[int, ...] = bounded((1, 2, 4, 8), 1, help="attention heads of the 4 stages")
    sr_ratios: tuple[int, ...] = bounded((8, 4, 2, 1), 1, help="nominal spatial reduction of keys and values, 4 stages")
    mlp_ratio: float = bounded(4.0, 0.25, 16, help="hidden width of the MLP over its input width")
    topology: str = choice("plans", ("plans", "paper"), help="strides from the plan, or the paper's fixed ones")
    position_embedding: str = choice(
        "full", ("full", "factorised"), help="one vector per token, or a sum over the axes"
    )
    full_resolution_conv: bool = described(False, "a ConvBlock after the last skip (paper: yes, authors' code: no)")
    checkpoint_activations: bool = described(
        False, "recompute the full-resolution layers in the backward pass: less memory"
    )

    # Knowledge condensation (KC) and knowledge-guided interaction (KI).
    num_prototypes: int = bounded(256, 1, 65536, help="prototypes per bank (k)")
    prototype_momentum: float = bounded(0.99, 0, 1, help="lambda of Eq. 3")
    shared_bank: bool = described(
        False, "one bank for both KC blocks, updated twice per iteration (authors), not one each"
    )
    prototype_init: str = choice(
        "random", ("random", "first"), help="random tokens of the batch, or its first ones (authors)"
    )
    kc_include_cls: bool = described(False, "let the class token of X-rays enter the X-ray bank (authors: yes)")
    sigma_ratio: int = bounded(1, 1, 16, help="reduction of the tokens before KC and KI (sigma of Eq. 2); 1: none")
    reseed_after: int = bounded(0, 0, help="re-seed a prototype unused for so many updates; 0: never")
    project_prototypes: bool = described(
        False, "send adapted prototypes through the block's key/value layer (authors: no)"
    )

    # Ablations of Fig. 2.
    ablation: str = choice(
        "none",
        ("none", "ct_only", "separate_encoders", "no_kc", "no_kc_no_ki", "no_warmup"),
        help="variants of Fig. 2",
    )

    # X-ray stream.
    xray_batch_size: int = bounded(32, 1, help="X-rays per iteration")
    xray_patch_size: tuple[int, int] = bounded((224, 224), 16, help="height and width of the X-ray patch, pixels")
    xray_min_scale: float = bounded(
        0.5, 0.01, 1, help="smallest share of the X-ray's area in a random crop (authors: 0.08)"
    )
    xray_flip: bool = described(False, "mirror X-rays at random on both axes (authors: yes)")
    xray_rotation: float = bounded(7.0, 0, 180, help="largest random rotation of an X-ray, degrees")
    # Filled in by training from the linked X-ray data set, so that prediction needs none.
    num_xray_classes: int | None = bounded(None, 1, help="filled in from the linked X-rays: number of classes")
    xray_classes: tuple[str, ...] | None = described(None, "filled in from the linked X-rays: names of the classes")
    xray_task: str | None = described(None, "filled in from the linked X-rays: multilabel or multiclass")
    xray_mean: float | None = described(None, "filled in from the linked X-rays: mean grey value in [0, 1]")
    xray_std: float | None = described(None, "filled in from the linked X-rays: standard deviation of the grey value")

    # Start.
    pretrained_unimiss: str | None = described(None, "path of UniMiSS+ weights to start from")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, length in (
            ("features_per_stage", 6),
            ("blocks_per_stage", 4),
            ("heads_per_stage", 4),
            ("sr_ratios", 4),
        ):
            if len(getattr(self, name)) != length:
                raise UsageError(f"{self.trainer} setting {name}={getattr(self, name)!r} must have {length} elements")
        for width, heads in zip(self.features_per_stage[2:], self.heads_per_stage, strict=True):
            if width % heads:
                raise UsageError(
                    f"{self.trainer} setting heads_per_stage={self.heads_per_stage!r}: {heads} heads do not divide the"
                    f" {width} channels of their stage (features_per_stage={self.features_per_stage!r})"
                )

    @classmethod
    def paper(cls, num_xray_classes: int = 14) -> UCISettings:
        """The authors' network and training, literally."""
        return cls(
            topology="paper",
            num_xray_classes=num_xray_classes,
            xray_task="multilabel" if num_xray_classes == 14 else "multiclass",
            shared_bank=True,
            prototype_init="first",
            kc_include_cls=True,
            decay_norm_and_bias=True,
            xray_min_scale=0.08,
            xray_flip=True,
        )

    @classmethod
    def literal(cls) -> dict[str, Any]:
        """`paper()` as overrides; the linked X-rays decide the number of classes and the task."""
        changed = cls.paper().changed()
        return {key: value for key, value in changed.items() if key not in ("num_xray_classes", "xray_task")}

    @property
    def uses_xrays(self) -> bool:
        """Whether training needs the X-ray stream."""
        return self.ablation != "ct_only"

    def replace(self, **changes: object) -> UCISettings:
        """A checked copy with `changes`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
