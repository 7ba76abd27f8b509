"""What a network costs, measured on the meta device: no data, no memory, a second of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nnunet_ext.settings.base import PLANS_KEY
from nnunet_ext.utilities.errors import UsageError


@dataclass(frozen=True)
class ForwardCost:
    """One forward pass of one sample.

    Attributes:
        input: name of the input -> shape.
        output: shapes of the outputs.
        gflop: floating point operations of one forward pass / 1e9; a multiply-add counts as two.
        saved_megabytes: what autograd keeps for the backward pass in fp32, parameters not counted, / 2**20.
    """

    input: dict[str, list[int]]
    output: list[list[int]]
    gflop: float
    saved_megabytes: float


@dataclass(frozen=True)
class NetworkReport:
    """Parameters in all and per part, and the cost of each way to call the network."""

    trainer: str
    parameters: int
    parameters_per_part: dict[str, int]
    forward: dict[str, ForwardCost]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.trainer}: {self.parameters:,} parameters"]
        lines += [f"  {name:<28}{count:>14,}" for name, count in self.parameters_per_part.items()]
        for name, cost in self.forward.items():
            shapes = ", ".join(f"{key} {shape_text(shape)}" for key, shape in cost.input.items())
            lines.append(f"forward {name} ({shapes})")
            lines.append(
                f"  {cost.gflop:,.1f} GFLOP, {cost.saved_megabytes:,.0f} MB saved for the backward pass (fp32)"
            )
            lines.append("  output " + ", ".join(shape_text(shape) for shape in cost.output))
        return "\n".join(lines)


def inspect_network(trainer: str, network: nn.Module, calls: Mapping[str, Mapping[str, Tensor]]) -> NetworkReport:
    """Measure `network` (on the meta device) for each named set of keyword inputs."""
    network.eval()  # dropout and prototype updates cost nothing worth counting
    parts: dict[str, int] = {}
    for name, parameter in network.named_parameters():  # names a shared parameter once
        owner = ".".join(name.split(".")[:-1][:2]) or name
        parts[owner] = parts.get(owner, 0) + parameter.numel()
    return NetworkReport(
        trainer=trainer,
        parameters=sum(p.numel() for p in network.parameters()),
        parameters_per_part=parts,
        forward={name: _forward_cost(network, inputs) for name, inputs in calls.items()},
    )


def _forward_cost(network: nn.Module, inputs: Mapping[str, Tensor]) -> ForwardCost:
    known = {p.untyped_storage()._cdata for p in network.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in known:
            saved[storage] = tensor
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = network(**inputs)
    return ForwardCost(
        input={name: list(tensor.shape) for name, tensor in inputs.items()},
        output=[list(tensor.shape) for tensor in tree_leaves(output)],
        gflop=counter.get_total_flops() / 1e9,
        saved_megabytes=sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / 2**20,
    )


def shape_text(shape: list[int]) -> str:
    """``[1, 32, 64]`` -> ``1x32x64``."""
    return "x".join(map(str, shape))


class Inspectable:
    """What a trainer tells about its network without data: mixed into `ExtensionTrainer`."""

    resolve_settings: ClassVar[Any]
    build_network_architecture: ClassVar[Any]

    @classmethod
    def inspection_inputs(cls, settings: Any, patch_size: Sequence[int], channels: int) -> dict[str, dict[str, Tensor]]:  # noqa: ARG003
        """Name of a way to call the network -> its inputs for one sample, on torch's current device."""
        return {"target": {"x": torch.empty(1, channels, *patch_size)}}

    @classmethod
    def inspect_plan(
        cls,
        plans: dict[str, Any],
        configuration: str,
        dataset_json: dict[str, Any],
        num_image_classes: int | None = None,
    ) -> NetworkReport:
        """Cost of the network that a plan describes; call it under ``torch.device("meta")``."""
        settings = cls.settings_for_inspection(plans, dataset_json, configuration, num_image_classes)
        plans = {**plans, PLANS_KEY: {**plans.get(PLANS_KEY, {}), settings.trainer: settings.to_dict()}}
        manager = PlansManager(plans)
        config = manager.get_configuration(configuration)
        channels = determine_num_input_channels(manager, config, dataset_json)
        heads = manager.get_label_manager(dataset_json).num_segmentation_heads
        try:
            network = cls.build_network_architecture(manager, config, channels, heads, True)
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(f"{cls.__name__} cannot build its network for -c {configuration}: {error}") from None
        return inspect_network(cls.__name__, network, cls.inspection_inputs(settings, config.patch_size, channels))

    @classmethod
    def settings_for_inspection(
        cls,
        plans: dict[str, Any],
        dataset_json: dict[str, Any],
        configuration: str,
        num_image_classes: int | None,  # noqa: ARG003
    ) -> Any:
        """The settings of training; a system may let `num_image_classes` stand in for data that are not linked yet."""
        return cls.resolve_settings(plans, dataset_json, configuration)

    @classmethod
    def inspect_paper(cls, num_image_classes: int | None = None) -> NetworkReport:  # noqa: ARG003
        """Cost of the paper's own network; call it under ``torch.device("meta")``."""
        raise UsageError(f"{cls.__name__} follows no paper's network; give -d, -c and -p instead of --paper")

    @classmethod
    def inspect_paper_2d(cls, num_image_classes: int | None = None) -> NetworkReport:  # noqa: ARG003
        """Cost of the paper's own 2D network; call it under ``torch.device("meta")``."""
        raise UsageError(f"{cls.__name__} follows no paper's 2D network; leave 2d out, or give -d, -c and -p")
