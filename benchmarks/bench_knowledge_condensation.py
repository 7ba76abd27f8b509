"""Speed of knowledge condensation: `PrototypeBank` against the loops of Eq. 2 and 3 and against a loop per prototype.

    python benchmarks/bench_knowledge_condensation.py [--tokens 1600] [--prototypes 256] [--channels 320]

Prints seconds per update, ratios and the largest absolute difference of the results. Exit code 1 if the vectorised
update is not 100 times as fast as the loops, or differs by more than 1e-6. Set OMP_NUM_THREADS=1 for one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_ext.architectures.prototypes import PrototypeBank

MOMENTUM = 0.99
WANTED_RATIO, WANTED_DIFFERENCE = 100, 1e-6


def loops(tokens: Tensor, prototypes: Tensor) -> Tensor:
    """Eq. 2 and 3 as written: each token to its nearest prototype, then each prototype to the mean of its tokens."""
    clusters: list[list[Tensor]] = [[] for _ in prototypes]
    for token in tokens:
        nearest, smallest = 0, float("inf")
        for i, prototype in enumerate(prototypes):
            distance = float(((token - prototype) ** 2).sum())
            if distance < smallest:
                nearest, smallest = i, distance
        clusters[nearest].append(token)
    return momentum_update(clusters, prototypes)


def broadcast_and_loop(tokens: Tensor, prototypes: Tensor) -> Tensor:
    """All distances by broadcasting (N x K x D values at once), then a loop over the prototypes."""
    nearest = ((tokens[:, None] - prototypes[None]) ** 2).sum(-1).argmin(1)
    return momentum_update([tokens[nearest == i] for i in range(len(prototypes))], prototypes)


def momentum_update(clusters: list[list[Tensor]] | list[Tensor], prototypes: Tensor) -> Tensor:
    """Eq. 3, one prototype after the other."""
    updated = prototypes.clone()
    for i, cluster in enumerate(clusters):
        if len(cluster):
            members = torch.stack(cluster) if isinstance(cluster, list) else cluster
            updated[i] = MOMENTUM * prototypes[i] + (1 - MOMENTUM) * members.mean(0)
    return updated


def seconds(function: Callable[[], object], repetitions: int) -> float:
    """Median wall time of one call, after one call to warm up."""
    function() if repetitions > 1 else None
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> int:
    """Compare the three at the sizes of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1600, help="tokens of a batch (32 X-rays: 1600)")
    parser.add_argument("--prototypes", type=int, default=256)
    parser.add_argument("--channels", type=int, default=320)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    tokens = torch.randn(arguments.tokens, arguments.channels)
    bank = PrototypeBank(arguments.prototypes, arguments.channels, momentum=MOMENTUM)
    bank.prototypes.normal_()
    bank.initialised.fill_(True)
    prototypes = bank.prototypes.clone()

    bank.update(tokens)
    expected = broadcast_and_loop(tokens, prototypes)
    naive: list[Tensor] = []
    times = {
        "loops of Eq. 2 and 3": seconds(lambda: naive.append(loops(tokens, prototypes)), 1),
        "broadcast, loop per prototype": seconds(lambda: broadcast_and_loop(tokens, prototypes), 5),
        "PrototypeBank.update": seconds(lambda: bank.update(tokens), 20),
    }

    bank.prototypes.copy_(prototypes)
    bank.update(tokens)
    difference = max(float((bank.prototypes - other).abs().max()) for other in (expected, naive[0]))
    ours = times["PrototypeBank.update"]
    print(f"N={arguments.tokens} K={arguments.prototypes} D={arguments.channels}, {torch.get_num_threads()} thread(s)")
    for name, value in times.items():
        print(f"{name:32s}{value * 1e3:12.2f} ms{value / ours:10.1f} x")
    print(f"largest difference {difference:.1e}")
    return int(times["loops of Eq. 2 and 3"] < WANTED_RATIO * ours or difference > WANTED_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
