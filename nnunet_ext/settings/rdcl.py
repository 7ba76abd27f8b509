"""Settings of `RDCLTrainer` (Zhang et al., Relation-driven collaborative learning, IEEE JBHI 25(11), 2021)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from nnunet_ext.settings.base import Settings, bounded, choice, described
from nnunet_ext.utilities.errors import UsageError


@dataclass(frozen=True)
class RDCLSettings(Settings):
    """Defaults are the recommended reading, `RDCLSettings.paper()` the literal one."""

    trainer: ClassVar[str] = "RDCLTrainer"

    # Relation losses.
    relation_weight: float = bounded(0.1, 0, 1e6, help="lambda_G and lambda_T at the end of the ramp")
    ramp: str = choice("gaussian", ("gaussian", "exp"), help="exp(-5(1-t)^2), or exp(-5(1-t)) as printed in the paper")
    reduction: str = choice(
        "sum_per_row",
        ("sum_per_row", "sum", "mean"),
        help="||.||^2 of C x C relations: sum over C, sum as printed, or mean",
    )
    batch_relation: str = choice(
        "mean_first", ("mean_first", "per_sample"), help="Gram matrix of the batch's mean features, or mean of Grams"
    )

    # Who learns.
    ablation: str = choice(
        "none",
        ("none", "baseline", "general_only", "target_only"),
        help="rows of Table III: both relation losses; neither; L_G alone; L_T alone. The general encoder is frozen"
        " where L_G is missing",
    )
    joint_general: bool = described(False, "let segmentation and L_T train the general encoder too (Algorithm 1: no)")
    general_weight_decay: float = bounded(0.0, 0, 1, help="weight decay of the general encoder (nnU-Net: 3e-5)")
    recompute_general: bool = described(
        True, "compute norms and nonlinearities of the general encoder again in the backward pass: half its memory"
    )

    # Streams.
    non_target_batch_size: int | None = bounded(None, 1, help="non-target images per iteration; null: as target images")
    unlabeled_batch_size: int | None = bounded(
        None, 0, help="unlabelled target images per iteration, if linked; null: as labelled ones; 0: none"
    )

    # Start.
    general_weights: str | None = described(
        None, "checkpoint of an ordinary nnU-Net run on the non-target data to start the general encoder from"
    )
    init_target_from_general: bool = described(False, "start the target encoder from general_weights, too")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_target_from_general and self.general_weights is None:
            raise UsageError(
                f"{self.trainer} setting init_target_from_general=True needs general_weights, the checkpoint to load"
            )
        if self.joint_general and not self.trains_general:
            raise UsageError(
                f"{self.trainer} setting joint_general=True trains the general encoder, but"
                f" ablation={self.ablation!r} freezes it; drop one of them"
            )

    @classmethod
    def paper(cls) -> RDCLSettings:
        """The formulas as printed, with nnU-Net's weight decay on all weights."""
        return cls(reduction="sum", ramp="exp", general_weight_decay=3e-5)

    @classmethod
    def literal(cls) -> dict[str, Any]:
        """`paper()` as overrides."""
        return cls.paper().changed()

    @property
    def trains_general(self) -> bool:
        """Whether L_G is there to train the general encoder; it is frozen without."""
        return self.ablation in ("none", "general_only")

    @property
    def pushes_target(self) -> bool:
        """Whether L_T is there."""
        return self.ablation in ("none", "target_only")

    @property
    def uses_relations(self) -> bool:
        """Whether there is a relation loss at all, and so a use for unlabelled images."""
        return self.trains_general or self.pushes_target

    def replace(self, **changes: object) -> RDCLSettings:
        """A checked copy with `changes`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
