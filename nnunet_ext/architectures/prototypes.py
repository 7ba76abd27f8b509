"""Knowledge condensation (KC): momentum-updated prototypes of one modality (Eq. 2 and 3 of UCI).

C_i = {m : i = argmin_j ||m - p_j||^2}                                     (2)
p_i <- lambda p_i + (1 - lambda) / |C_i| * sum of the tokens in C_i        (3)
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Primes larger than any number of tokens in a batch: coprime with it, so that `i -> (i * prime + shift) % total`
# visits each of `total` tokens exactly once.
PRIMES = (1000000007, 1137654341, 1275308651, 1412963003, 1550617297, 1688271643, 1825925951, 1963580261)
LARGEST_SHIFT = 2**31


def assign(tokens: Tensor, prototypes: Tensor, initialised: Tensor) -> Tensor:
    """Index of the nearest initialised prototype of each token (Eq. 2).

    tokens (N, D), prototypes (K, D), initialised (K,) bool -> (N,) int64. With no prototype initialised: 0.
    """
    # ||m||^2 is the same for all prototypes, so the argmin does without it.
    distances = torch.addmm(prototypes.square().sum(1), tokens, prototypes.T, alpha=-2)  # N, K
    return distances.masked_fill(~initialised, torch.inf).argmin(1)


def cluster_sums(
    tokens: Tensor, assignment: Tensor, num_prototypes: int, counted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum (K, D) and number (K,) of the tokens of each cluster, in the dtype of `tokens`.

    `counted` (N,) bool leaves tokens out where it is False.
    """
    members = assignment == torch.arange(num_prototypes, device=tokens.device)[:, None]  # K, N
    members = (members if counted is None else members & counted).to(tokens.dtype)
    return members @ tokens, members.sum(1)  # a product, as adding by index is not deterministic on GPUs


def momentum_update(prototypes: Tensor, sums: Tensor, counts: Tensor, momentum: float) -> Tensor:
    """Eq. 3; a prototype without tokens keeps its value."""
    means = sums / counts.clamp_min(1)[:, None]
    return torch.where(counts[:, None] > 0, momentum * prototypes + (1 - momentum) * means, prototypes)


class PrototypeBank(nn.Module):
    """The K prototypes of one modality: buffers, never parameters, changed by `update` alone.

    A bank starts vacant and is filled with the first tokens it sees, over several batches if one has fewer than K. With
    ``init="random"`` they are drawn from the whole batch without replacement (a random stride and a random start), with
    ``"first"`` they are the first ones in order. A prototype without a token for `reseed_after` > 0 updates is vacant
    again. With ``condense=False`` (ablation "w/o KC") the bank holds K tokens of the latest batch in their place.

    Under `torch.distributed` all ranks hold the same bank, and it equals that of one process that sees the
    concatenated batch.
    """

    prototypes: Tensor
    initialised: Tensor
    unused_for: Tensor
    usage: Tensor
    primes: Tensor

    def __init__(
        self,
        num_prototypes: int,
        channels: int,
        *,
        momentum: float = 0.99,
        init: str = "random",
        reseed_after: int = 0,
        condense: bool = True,
    ) -> None:
        super().__init__()
        if init not in ("random", "first"):
            raise ValueError(f"prototype_init={init!r} is neither 'random' nor 'first'")
        self.momentum, self.init, self.reseed_after, self.condense = momentum, init, reseed_after, condense
        self.register_buffer("prototypes", torch.zeros(num_prototypes, channels))
        self.register_buffer("initialised", torch.zeros(num_prototypes, dtype=torch.bool))
        self.register_buffer("unused_for", torch.zeros(num_prototypes, dtype=torch.int64))
        self.register_buffer("usage", torch.zeros(num_prototypes), persistent=False)
        self.register_buffer("primes", torch.tensor(PRIMES), persistent=False)

    @torch.no_grad()
    def update(self, tokens: Tensor) -> None:
        """Fill vacant prototypes, then condense `tokens` (..., D) into the bank; fp32, no host synchronisation.

        Tokens that are not finite are left out: in mixed precision an overflow costs the step, and must not cost
        the bank.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.detach().flatten(0, -2).float()
            finite = tokens.isfinite().all(1)
            tokens = tokens.where(finite[:, None], 0)
            self._fill(tokens, finite)
            if self.condense:
                self._condense(tokens, finite)

    def _fill(self, tokens: Tensor, finite: Tensor) -> None:
        vacant = self._vacant()
        candidates = self._candidates(torch.cat([tokens, finite[:, None]], dim=1))
        order = vacant.cumsum(0) - 1  # the j-th vacant prototype takes the j-th candidate
        chosen = candidates[order.clamp_min(0)]  # K, D + 1
        chosen, valid = chosen[:, :-1], chosen[:, -1] > 0
        filled = vacant & valid
        self.prototypes.copy_(torch.where(filled[:, None], chosen, self.prototypes))
        self.initialised.logical_or_(filled)
        self.unused_for.masked_fill_(filled, 0)

    def _vacant(self) -> Tensor:
        if not self.condense:
            return torch.ones_like(self.initialised)
        if self.reseed_after == 0:
            return ~self.initialised
        return ~self.initialised | (self.unused_for >= self.reseed_after)

    def _candidates(self, tokens: Tensor) -> Tensor:
        """K tokens of the batch of all ranks (K, D); rows past the size of that batch are zero."""
        index, total, prime, shift = self._global_index(tokens)
        if self.init == "random":
            index = (index * prime + shift) % total
        num_prototypes = len(self.prototypes)
        rows = torch.where(index < num_prototypes, index, num_prototypes)  # the last row takes what is not drawn
        candidates = tokens.new_zeros(num_prototypes + 1, tokens.shape[1]).index_copy_(0, rows, tokens)[:-1]
        return _sum_over_ranks(candidates)

    def _global_index(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Index of each token in the concatenated batch, its size, and rank 0's draw of a prime and a shift."""
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
        ranks = torch.arange(world_size + 2, device=tokens.device)
        message = torch.where(ranks == rank, len(tokens), 0)  # tokens of each rank, then prime and shift
        if rank == 0:
            which = torch.randint(len(PRIMES), (1,), device=tokens.device)
            message[-2] = self.primes[which].squeeze(0)
            message[-1] = torch.randint(LARGEST_SHIFT, (1,), device=tokens.device).squeeze(0)
        message = _sum_over_ranks(message)
        sizes, (prime, shift) = message[:-2], message[-2:].unbind()
        offset = sizes[:rank].sum()
        return offset + torch.arange(len(tokens), device=tokens.device), sizes.sum(), prime, shift

    def _condense(self, tokens: Tensor, finite: Tensor) -> None:
        assignment = assign(tokens, self.prototypes, self.initialised)
        sums, counts = cluster_sums(tokens, assignment, len(self.prototypes), finite)
        message = _sum_over_ranks(torch.cat([sums, counts[:, None]], dim=1))  # K, D + 1
        sums, counts = message[:, :-1], message[:, -1]
        self.prototypes.copy_(momentum_update(self.prototypes, sums, counts, self.momentum))
        self.unused_for.copy_(torch.where(counts > 0, 0, self.unused_for + 1))
        self.usage.add_(counts)

    def read_usage(self) -> tuple[Tensor, Tensor]:
        """Number of prototypes used since the last call, and the perplexity exp(entropy) of their use; then reset.

        Two 0-dimensional tensors on the bank's device; (0, 1) when nothing was condensed.
        """
        share = self.usage / self.usage.sum().clamp_min(1)
        perplexity = torch.special.entr(share).sum().exp()
        used = (self.usage > 0).sum()
        self.usage.zero_()
        return used, perplexity


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks; `tensor` itself without `torch.distributed`."""
    if _is_distributed():
        tensor = tensor.contiguous()
        dist.all_reduce(tensor)
    return tensor
