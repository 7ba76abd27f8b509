from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from nnunet_ext.architectures.prototypes import PrototypeBank, assign, cluster_sums, momentum_update


def naive_update(tokens, prototypes, momentum):
    """Eq. 2 and 3 of the paper, token by token and prototype by prototype."""
    clusters = [[] for _ in prototypes]
    for m in tokens:
        distances = [float(((m - p) ** 2).sum()) for p in prototypes]
        clusters[distances.index(min(distances))].append(m)
    updated = [
        momentum * p + (1 - momentum) * sum(c) / len(c) if c else p for p, c in zip(prototypes, clusters, strict=True)
    ]
    return torch.stack(updated), [len(c) for c in clusters]


def filled_bank(prototypes, **options):
    bank = PrototypeBank(*prototypes.shape, **options)
    bank.prototypes.copy_(prototypes)
    bank.initialised.fill_(True)
    return bank


def test_update_is_the_papers():
    torch.manual_seed(0)
    tokens, prototypes = torch.randn(3, 20, 6), torch.randn(30, 6)
    prototypes[7] = 100.0  # far from every token: an empty cluster
    prototypes[8] = -50.0
    tokens[1, 4] = -49.0  # the one member of its cluster
    expected, counts = naive_update(tokens.flatten(0, 1), prototypes, 0.9)
    assert counts[7] == 0 and counts[8] == 1

    bank = filled_bank(prototypes, momentum=0.9)
    bank.update(tokens)
    torch.testing.assert_close(bank.prototypes, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(bank.prototypes[7], prototypes[7])
    assert bank.usage.tolist() == counts


def test_pure_functions_by_hand():
    tokens = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    prototypes = torch.tensor([[1.0, 0.0], [-90.0, 0.0], [8.0, 8.0]])
    assignment = assign(tokens, prototypes, torch.tensor([True, True, True]))
    assert assignment.tolist() == [0, 0, 2]
    assert assign(tokens, prototypes, torch.tensor([False, True, True])).tolist() == [2, 2, 2]
    sums, counts = cluster_sums(tokens, assignment, 3)
    assert sums.tolist() == [[2.0, 0.0], [0.0, 0.0], [9.0, 9.0]] and counts.tolist() == [2.0, 0.0, 1.0]
    updated = momentum_update(prototypes, sums, counts, 0.5)
    assert updated.tolist() == [[1.0, 0.0], [-90.0, 0.0], [8.5, 8.5]]


def rows_of(prototypes, tokens):
    """Index in `tokens` of each prototype that equals one."""
    return (prototypes[:, None] == tokens[None]).all(-1).int().argmax(1)


@pytest.mark.parametrize("init", ["random", "first"])
def test_a_vacant_bank_takes_distinct_tokens(init):
    torch.manual_seed(0)
    tokens = torch.randn(50, 4)
    bank = PrototypeBank(20, 4, init=init, momentum=1.0)
    bank.update(tokens)
    rows = rows_of(bank.prototypes, tokens)
    assert bank.initialised.all()
    assert torch.equal(bank.prototypes, tokens[rows]) and len(rows.unique()) == 20
    assert (rows.tolist() == list(range(20))) == (init == "first")


def test_random_init_reaches_every_token():
    torch.manual_seed(0)
    tokens, drawn = torch.randn(30, 4), set()
    for _ in range(40):
        bank = PrototypeBank(5, 4, momentum=1.0)
        bank.update(tokens)
        drawn |= set(rows_of(bank.prototypes, tokens).tolist())
    assert drawn == set(range(30))


def test_a_bank_larger_than_the_batch_is_filled_over_several():
    bank = PrototypeBank(10, 4, momentum=1.0, init="first")
    batches = [torch.randn(4, 4) for _ in range(3)]
    for batch, filled in zip(batches, (4, 8, 10), strict=True):
        bank.update(batch)
        assert bank.initialised.sum() == filled
    assert torch.equal(bank.prototypes, torch.cat(batches)[:10])


def test_uninitialised_prototypes_attract_no_token():
    bank = PrototypeBank(3, 2)
    bank.update(torch.full((2, 2), 1e-3))
    assert bank.initialised.tolist() == [True, True, False]
    assert bank.prototypes[2].tolist() == [0.0, 0.0] and bank.usage[2] == 0


def test_reseeding():
    prototypes = torch.tensor([[0.0, 0.0], [100.0, 100.0]])
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank = filled_bank(prototypes, reseed_after=2, momentum=0.5)
    for _ in range(2):
        bank.update(tokens)
    assert bank.prototypes[1].tolist() == [100.0, 100.0] and bank.unused_for.tolist() == [0, 2]
    bank.update(tokens)
    assert bank.prototypes[1].abs().max() <= 1 and bank.unused_for.tolist()[1] == 0


def test_without_reseeding_an_unused_prototype_stays():
    prototypes = torch.tensor([[0.0, 0.0], [100.0, 100.0]])
    bank = filled_bank(prototypes)
    for _ in range(5):
        bank.update(torch.randn(4, 2))
    assert torch.equal(bank.prototypes[1], prototypes[1]) and bank.unused_for.tolist() == [0, 5]


def test_without_condensation_the_bank_is_the_latest_batch():
    bank = PrototypeBank(4, 3, condense=False, init="first")
    bank.update(torch.randn(6, 3))
    latest = torch.randn(2, 3, 3)
    bank.update(latest)
    assert torch.equal(bank.prototypes, latest.flatten(0, 1)[:4])


def test_update_is_single_precision_and_without_gradient():
    bank = filled_bank(torch.randn(4, 3))
    tokens = torch.randn(5, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bank.update(tokens.bfloat16())
    assert bank.prototypes.dtype == torch.float32 and not bank.prototypes.requires_grad
    assert not list(bank.parameters())


def test_usage_is_read_and_reset():
    bank = filled_bank(torch.tensor([[0.0], [10.0], [20.0], [30.0]]), momentum=1.0)
    bank.update(torch.tensor([[0.0], [0.5], [10.0], [11.0]]))
    used, perplexity = bank.read_usage()
    assert used == 2 and perplexity == pytest.approx(2.0)
    used, perplexity = bank.read_usage()
    assert used == 0 and perplexity == pytest.approx(1.0)


def test_the_state_is_whole():
    bank = PrototypeBank(4, 3)
    bank.update(torch.randn(9, 3))
    other = PrototypeBank(4, 3)
    other.load_state_dict(bank.state_dict())
    assert set(bank.state_dict()) == {"prototypes", "initialised", "unused_for"}
    assert torch.equal(other.prototypes, bank.prototypes) and other.initialised.all()


def test_unknown_init():
    with pytest.raises(ValueError, match="prototype_init='kmeans'"):
        PrototypeBank(4, 3, init="kmeans")


@pytest.mark.parametrize("init", ["random", "first"])
def test_two_ranks_equal_one_process(tmp_path, monkeypatch, init):
    """Unequal shares of the batch, a bank larger than the first batch, several updates."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import prototype_ranks

    torch.manual_seed(5)
    single = prototype_ranks.make_bank(init)
    for tokens in prototype_ranks.batches():
        single.update(tokens)

    mp.spawn(prototype_ranks.update_on_rank, (init, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name, value in single.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_token_that_is_not_finite_is_left_out(value):
    torch.manual_seed(0)
    tokens, prototypes = torch.randn(12, 6), torch.randn(4, 6)
    bank, reference = filled_bank(prototypes, momentum=0.9), filled_bank(prototypes, momentum=0.9)
    spoiled = torch.cat([tokens, torch.full((1, 6), value)])
    bank.update(spoiled)
    reference.update(tokens)
    torch.testing.assert_close(bank.prototypes, reference.prototypes)

    vacant = PrototypeBank(13, 6, init="first")
    vacant.update(spoiled)
    assert vacant.prototypes.isfinite().all()
    assert vacant.initialised.tolist() == [True] * 12 + [False], "nor does it start a prototype"
