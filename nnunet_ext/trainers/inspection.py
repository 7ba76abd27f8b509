"""What a network costs, measured on the meta device: no data, no memory, a second of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


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
    outputs = output if isinstance(output, list | tuple) else [output]
    return ForwardCost(
        input={name: list(tensor.shape) for name, tensor in inputs.items()},
        output=[list(tensor.shape) for tensor in outputs],
        gflop=counter.get_total_flops() / 1e9,
        saved_megabytes=sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / 2**20,
    )


def shape_text(shape: list[int]) -> str:
    """``[1, 32, 64]`` -> ``1x32x64``."""
    return "x".join(map(str, shape))
