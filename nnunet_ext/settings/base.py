"""Settings live in the plans: frozen dataclasses, checked field by field before any work.

A system's settings are a frozen dataclass whose defaults are the recommended reading of its paper. Each field that is
bounded carries its bound in its metadata (`bounded`, `choice`), so that one function checks all of them and one
message names key, value and range.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from typing import Any, ClassVar, TypeVar

from nnunet_ext.utilities.errors import UsageError

PLANS_KEY = "nnunet_ext"
S = TypeVar("S", bound="Settings")


def bounded(default: Any, low: float = -math.inf, high: float = math.inf, help: str = "") -> Any:
    """A field whose value, or each of whose elements, lies in [low, high]."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "help": help})


def choice(default: str, options: tuple[str, ...], help: str = "") -> Any:
    """A field that takes one of `options`."""
    return dataclasses.field(default=default, metadata={"options": options, "help": help})


def described(default: Any, help: str) -> Any:
    """A field without a bound, with its help text."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every system can set. Defaults are nnU-Net's, but for `save_every` (nnU-Net: 50 epochs)."""

    trainer: ClassVar[str]
    """The name of the trainer (``-tr``) that these settings belong to: their key in the plans."""

    num_epochs: int = bounded(1000, 1, help="epochs of training")
    num_iterations_per_epoch: int = bounded(250, 1, help="training iterations per epoch")
    num_val_iterations_per_epoch: int = bounded(50, 1, help="validation iterations per epoch")
    initial_lr: float = bounded(1e-2, 1e-12, 1e3, help="learning rate at the start of the poly decay")
    weight_decay: float = bounded(3e-5, 0, 1, help="weight decay of the optimiser")
    gradient_clip: float = bounded(12.0, 1e-6, help="largest norm of the gradient")
    oversample_foreground_percent: float = bounded(0.33, 0, 1, help="share of patches centred on foreground")
    mirror_axes: tuple[int, ...] | None = bounded(
        None,
        0,
        2,
        help="spatial axes mirrored in training and at prediction; []: no mirroring; null: nnU-Net's choice, all",
    )
    save_every: int = bounded(10, 1, help="epochs between two checkpoints")
    seed: int | None = described(None, "seed of Python, NumPy and torch; null: not seeded")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(self, field))

    @classmethod
    def from_plans(cls: type[S], plans: dict[str, Any]) -> S:
        """The settings that ``plans["nnunet_ext"][trainer]`` overrides; defaults for the rest.

        Raises:
            UsageError: an unknown key or a value out of range; names key, value and range.
        """
        return cls.from_dict((plans.get(PLANS_KEY) or {}).get(cls.trainer, {}))

    @classmethod
    def from_dict(cls: type[S], overrides: dict[str, Any]) -> S:
        """Defaults with `overrides`; raises UsageError like `from_plans`."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in overrides:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known settings: {', '.join(known)}"
                raise UsageError(f"{cls.trainer} has no setting {key!r}; {hint}")
        return cls(**overrides)

    @classmethod
    def literal(cls) -> dict[str, Any]:
        """What the paper's literal reading overrides.

        Raises:
            UsageError: these settings follow no paper.
        """
        raise UsageError(f"{cls.trainer} follows no paper; leave --paper out")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def changed(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        defaults = type(self)().to_dict()
        return {k: v for k, v in self.to_dict().items() if v != defaults[k]}


def spelled(value: Any, at_most: int = 200) -> str:
    """`value` as JSON for a reader; of a long list (a vocabulary) the beginning and how many elements it has."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= at_most else f"{text[:at_most]} ... ({len(value)} elements)"


def _checked(settings: Settings, field: dataclasses.Field[Any]) -> Any:
    """The value of `field`, brought to its annotated type; UsageError if it is of another type or out of range."""
    value = getattr(settings, field.name)
    annotation = typing.get_type_hints(type(settings))[field.name]
    label = f"{settings.trainer} setting {field.name}={value!r}"
    converted = _convert(value, annotation)
    if converted is _MISMATCH:
        raise UsageError(f"{label} is not of type {_spell(annotation)}")
    if "options" in field.metadata and converted not in field.metadata["options"]:
        raise UsageError(f"{label} is not one of {', '.join(field.metadata['options'])}")
    low, high = field.metadata.get("low", -math.inf), field.metadata.get("high", math.inf)
    for element in converted if isinstance(converted, tuple) else (converted,):
        if isinstance(element, int | float) and not low <= element <= high:
            raise UsageError(f"{label} is outside the range [{low:g}, {high:g}]")
    return converted


_MISMATCH = object()


def _convert(value: Any, annotation: Any) -> Any:
    """JSON value -> annotated type (int, float, bool, str, tuple of one of them, or one of these or None)."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(value, next(a for a in typing.get_args(annotation) if a is not type(None)))
    if origin is tuple:
        arguments = typing.get_args(annotation)
        if not isinstance(value, list | tuple):
            return _MISMATCH
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            return _MISMATCH
        elements = tuple(_convert(element, arguments[0]) for element in value)
        return _MISMATCH if _MISMATCH in elements else elements
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else _MISMATCH
    if isinstance(value, annotation) and not (annotation is int and isinstance(value, bool)):
        return value
    return _MISMATCH


def _spell(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
