"""Settings of `MAMLTrainer` (Zhang et al., Modality-aware mutual learning, MICCAI 2021), and what a modality is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nnunet_ext.settings.base import PLANS_KEY, Settings, bounded, choice, described
from nnunet_ext.utilities.errors import UsageError

LARGEST_DROPOUT = 0.95  # of every modality at once, or no image would be left to learn from


@dataclass(frozen=True)
class MAMLSettings(Settings):
    """Defaults are the recommended reading, `MAMLSettings.paper()` the literal one."""

    trainer: ClassVar[str] = "MAMLTrainer"

    # Streams.
    modalities: Mapping | None = described(  # type: ignore[type-arg]  # JSON; `__post_init__` checks what is inside
        None,
        'name of each modality -> its channels, as {"arterial": [0], "venous": [1]}; null: one per channel, named by'
        " dataset.json",
    )
    region_targets: bool | None = described(None, "filled in from dataset.json: whether the targets are regions")

    # Loss.
    lambda_intra: float = bounded(0.5, 0, 1e6, help="lambda of Eq. 3, weight of each stream's own loss")
    ablation: str = choice(
        "none",
        ("none", "ensemble", "ma_only"),
        help="rows of Table 1: MAML; MS+Ensemble, the average of streams that learn alone; MS+MA, the joint loss alone",
    )

    # Attention.
    ma_second_kernel: int = bounded(
        3,
        1,
        3,
        help="kernel of the second convolution of MA: 3 as in the figure; 1, with norm and ReLU, as in the text",
    )
    checkpoint_attention: bool = described(False, "compute MA again in the backward pass: its memory for a little time")

    # Missing modalities.
    modality_dropout: float = bounded(
        0.0, 0, LARGEST_DROPOUT, help="probability that a modality is absent from a training batch; one always stays"
    )
    modality_probabilities: Mapping | None = described(  # type: ignore[type-arg]  # as `modalities`
        None, 'such a probability for single modalities, as {"T1": 0.5}; the others keep modality_dropout'
    )

    # Optimiser.
    optimizer: str = choice("sgd", ("sgd", "adam"), help="SGD with Nesterov momentum 0.99 (nnU-Net), or Adam (paper)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ma_second_kernel == 2:
            raise UsageError(f"{self.trainer} setting ma_second_kernel=2 must be odd: 1 or 3")
        for name, suits, what in (
            ("modalities", _is_channel_list, "of names and lists of channel numbers"),
            ("modality_probabilities", _is_probability, f"of names and numbers in [0, {LARGEST_DROPOUT:g}]"),
        ):
            value = getattr(self, name)
            if value is not None and not all(isinstance(k, str) and k and suits(v) for k, v in value.items()):
                raise UsageError(f"{self.trainer} setting {name}={value!r} is not an object {what}")
        if self.modalities is not None:
            # Whoever writes JSON with sorted keys must not change which stream sees which channel.
            object.__setattr__(self, "modalities", dict(sorted(self.modalities.items(), key=lambda item: min(item[1]))))

    @classmethod
    def paper(cls) -> MAMLSettings:
        """The text of the paper: its attention, optimiser and length."""
        return cls(ma_second_kernel=1, optimizer="adam", initial_lr=3e-4, num_epochs=600)

    @classmethod
    def literal(cls) -> dict[str, Any]:
        """`paper()` as overrides."""
        return cls.paper().changed()

    @property
    def joint_weight(self) -> float:
        """Weight of L_joint; the ensemble has no joint prediction to learn."""
        return 0.0 if self.ablation == "ensemble" else 1.0

    @property
    def intra_weight(self) -> float:
        """Weight of each L_intra: lambda; 1 where streams learn alone, since each then is an nnU-Net of its own."""
        return {"none": self.lambda_intra, "ensemble": 1.0, "ma_only": 0.0}[self.ablation]

    def replace(self, **changes: object) -> MAMLSettings:
        """A checked copy with `changes`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def _is_channel_list(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(type(channel) is int for channel in value)


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST_DROPOUT


def channel_names(dataset_json: dict[str, Any]) -> list[str]:
    """A name for every channel of a data set, in order.

    ``"nnunet_ext": {"modality_names": [...]}`` of ``dataset.json`` if there; otherwise nnU-Net's, by which it chooses
    the normalisation, with its number where it is not the only one (``CT_0``, ``CT_1``).
    """
    if own := (dataset_json.get(PLANS_KEY) or {}).get("modality_names"):
        return [str(name) for name in own]
    names = dataset_json["channel_names"] if "channel_names" in dataset_json else dataset_json["modality"]
    ordered = [names[key] for key in sorted(names, key=int)]
    return [f"{name}_{i}" if ordered.count(name) > 1 else name for i, name in enumerate(ordered)]


def modality_channels(settings: MAMLSettings, dataset_json: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name of every modality -> its channels, in the order of the network's streams (that of the first channels).

    Raises:
        UsageError: fewer than two modalities; a channel that does not exist, is in two groups or in none.
    """
    names = channel_names(dataset_json)
    groups = settings.modalities or {name: [channel] for channel, name in enumerate(names)}
    listed = [channel for group in groups.values() for channel in group]
    available = ", ".join(f"{channel} ({name})" for channel, name in enumerate(names))
    for channels, problem in (
        (sorted(set(listed) - set(range(len(names)))), "which the data set does not have"),
        (_repeated(listed), "more than once"),
        (sorted(set(range(len(names))) - set(listed)), "in no modality"),
    ):
        if channels:
            raise UsageError(
                f"{settings.trainer} setting modalities={settings.modalities!r} has channel {channels[0]} {problem};"
                f" give each of the channels {available} to one modality"
            )
    if len(groups) < 2:
        raise UsageError(
            f"{settings.trainer} needs at least two modalities, but there is one ({', '.join(groups)}) of"
            f" {len(names)} channel{'s' * (len(names) > 1)}: {available}; "
            + ("split it" if len(names) > 1 else "train with -tr nnUNetTrainer, or with -tr UCITrainer and X-rays")
        )
    return {name: tuple(channels) for name, channels in groups.items()}


def absence_probabilities(settings: MAMLSettings, names: Iterable[str]) -> tuple[float, ...]:
    """Probability that each of the modalities `names` is absent from a training batch.

    Raises:
        UsageError: `modality_probabilities` names another one.
    """
    names, own = list(names), settings.modality_probabilities or {}
    for name in own:
        if name not in names:
            raise UsageError(
                f"{settings.trainer} setting modality_probabilities has {name!r}, which is none of the modalities"
                f" {', '.join(names)}"
            )
    return tuple(float(own.get(name, settings.modality_dropout)) for name in names)


def _repeated(channels: list[int]) -> list[int]:
    return sorted({channel for channel in channels if channels.count(channel) > 1})
