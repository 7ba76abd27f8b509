"""Memory of UCINet on a CPU, each case in a process of its own (peak resident set by getrusage).

    python benchmarks/bench_uci_memory.py              # all cases, about two minutes and 5 GB
    python benchmarks/bench_uci_memory.py --case forward

Cases, in the paper's configuration (61.6 M parameters, CT 1 x 32 x 256 x 256):
    forward          one CT forward without gradients
    step             forward, loss and backward of one CT
    step_recomputed  the same with ``checkpoint_activations``
and at a reduced size (CT 2 x 16 x 128 x 128, X-rays 32 x 80 x 80: the memory ratio of the paper's 2 and 32):
    joint            both forwards, then one backward of the sum, as the authors do
    separate         a backward right after each forward: the same gradients

For comparison, the authors' network on such a machine: forward 2.0 GB, step 5.3 GB, 3.99 GB saved for backward.
Exit code 1 if a goal is missed: forward 2.0 GB, step 5.3 GB, separate / joint 0.72.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_ext.architectures.uci import UCINet
from nnunet_ext.architectures.uci_topology import Topology

GIB = 2**30
DEEP_SUPERVISION_WEIGHTS = (0.5333, 0.2667, 0.1333, 0.0667, 0.0)
CASES = ("forward", "step", "step_recomputed", "joint", "separate")
GOALS = {"forward": 2.0, "step": 5.3}
WANTED_RATIO = 0.72


class SavedBytes:
    """Bytes of activations that autograd keeps, counted once per storage, parameters left out; now and at most."""

    def __init__(self, net: UCINet) -> None:
        self.ignored = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self.references: dict[int, int] = {}
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> _Saved:
        """What autograd keeps in place of `tensor`."""
        return _Saved(self, tensor)

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A context in which all that is saved is counted."""
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda saved: saved.tensor)


class _Saved:
    """One saved tensor; autograd drops it when the backward pass is through with it."""

    def __init__(self, owner: SavedBytes, tensor: Tensor) -> None:
        self.owner, self.tensor = owner, tensor
        self.key, self.size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if self.key in owner.ignored:
            return
        count = owner.references.get(self.key, 0)
        owner.references[self.key] = count + 1
        owner.now += self.size if count == 0 else 0
        owner.peak = max(owner.peak, owner.now)

    def __del__(self) -> None:
        if self.key in self.owner.ignored:
            return
        self.owner.references[self.key] -= 1
        self.owner.now -= self.size if self.owner.references[self.key] == 0 else 0


def segmentation_loss(logits: list[Tensor]) -> Tensor:
    """Cross-entropy of all outputs against background: as large as a real one, and simple."""
    losses = [
        weight * torch.nn.functional.cross_entropy(x, torch.zeros(len(x), *x.shape[2:], dtype=torch.long))
        for weight, x in zip(DEEP_SUPERVISION_WEIGHTS, logits, strict=True)
    ]
    return torch.stack(losses).sum()


def resident() -> float:
    """Peak resident set of this process, GiB (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(patch_size: tuple[int, int, int], xray_size: int, **options: bool) -> UCINet:
    """The paper's network for a CT patch and square X-rays."""
    return UCINet(
        input_channels=1,
        num_classes=2,
        patch_size=patch_size,
        topology=Topology.paper(),
        xray_patch_size=(xray_size, xray_size),
        num_xray_classes=14,
        **options,
    )


def forward() -> None:
    """One CT through the network, as at prediction."""
    net = build((32, 256, 256), 224).eval()
    net.decoder.deep_supervision = False
    with torch.no_grad():
        net(torch.randn(1, 1, 32, 256, 256))
    report("forward")


def step(recomputed: bool = False) -> None:
    """Forward, loss and backward of one CT."""
    net = build((32, 256, 256), 224, checkpoint_activations=recomputed)
    saved = SavedBytes(net)
    with saved.hooks():
        loss = segmentation_loss(net(torch.randn(1, 1, 32, 256, 256)))
    loss.backward()
    report("step_recomputed" if recomputed else "step", saved)


def both(joint: bool) -> None:
    """One iteration of both modalities, with one backward or two."""
    net = build((16, 128, 128), 80)
    for parameter in net.parameters():  # in place before the measurement, as from the second iteration on
        parameter.grad = torch.ones_like(parameter)
    ct, xray, labels = torch.randn(2, 1, 16, 128, 128), torch.randn(32, 1, 80, 80), torch.zeros(32, 14)
    saved, before = SavedBytes(net), resident()
    with saved.hooks():
        xray_loss = torch.nn.functional.binary_cross_entropy_with_logits(net(xray=xray), labels)
        if not joint:
            xray_loss.backward()
            xray_loss = torch.zeros(())
        loss = segmentation_loss(net(ct)) + xray_loss
    loss.backward()
    report("joint" if joint else "separate", saved, before)


def report(case: str, saved: SavedBytes | None = None, before: float = 0.0) -> None:
    """One line for the parent: peak resident GiB, above `before`, GiB saved for backward, CPU seconds."""
    saved_peak = saved.peak / GIB if saved else 0.0
    print(case, *(f"{x:.3f}" for x in (resident(), resident() - before, saved_peak, time.process_time())))


RUN: dict[str, Callable[[], None]] = {
    "forward": forward,
    "step": step,
    "step_recomputed": lambda: step(recomputed=True),
    "joint": lambda: both(joint=True),
    "separate": lambda: both(joint=False),
}


def measure(case: str) -> dict[str, float]:
    """Run a case in its own process; print and return what it reports."""
    run = subprocess.run([sys.executable, __file__, "--case", case], check=True, capture_output=True, text=True)
    peak, growth, saved, cpu = map(float, run.stdout.split()[-4:])
    print(f"{case:16s} resident {peak:5.2f} GiB   saved for backward {saved:5.2f} GiB   {cpu:6.1f} CPU-s", flush=True)
    return {"resident": peak, "growth": growth, "saved": saved}


def main() -> int:
    """Run one case, or all and check the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="one case, in this process; default: all")
    arguments = parser.parse_args()
    if arguments.case:
        RUN[arguments.case]()
        return 0
    results = {case: measure(case) for case in CASES}
    ratios = {what: results["separate"][what] / results["joint"][what] for what in ("saved", "growth")}
    print(f"separate / joint: saved {ratios['saved']:.2f}, resident above program and weights {ratios['growth']:.2f}")
    missed = [case for case, goal in GOALS.items() if results[case]["resident"] > goal]
    if max(ratios.values()) > WANTED_RATIO:
        missed.append("separate / joint")
    print("missed: " + ", ".join(missed) if missed else "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
