"""Eq. 3 written out, and outputs that do not fit the targets."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.maml import MAMLLoss

WEIGHTS = (4, 2, 1)
SIZES = ((8, 8), (4, 4), (2, 2))


def outputs_and_targets(num_streams: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sizes = [SIZES[0], *(SIZES * num_streams)]
    outputs = [torch.randn(2, 3, *size, generator=generator).requires_grad_() for size in sizes]
    return outputs, [torch.randint(3, (2, *size), generator=generator) for size in SIZES]


def test_equation_3() -> None:
    outputs, targets = outputs_and_targets(2)
    joint, arterial, venous = outputs[0], outputs[1:4], outputs[4:7]
    l_joint = F.cross_entropy(joint, targets[0])
    l_arterial = sum(w / 7 * F.cross_entropy(s, y) for w, s, y in zip(WEIGHTS, arterial, targets, strict=True))
    l_venous = sum(w / 7 * F.cross_entropy(s, y) for w, s, y in zip(WEIGHTS, venous, targets, strict=True))

    loss = MAMLLoss(F.cross_entropy, WEIGHTS, 2, intra_weight=0.5)
    assert loss(outputs, targets).item() == pytest.approx((0.5 * (l_arterial + l_venous) + l_joint).item())
    term, intra = loss.terms(outputs, targets)
    assert [t.item() for t in (term, *intra)] == pytest.approx(
        [v.item() / f for v, f in ((l_joint, 1), (l_arterial, 2), (l_venous, 2))]
    )
    loss(outputs, targets).backward()
    assert all(output.grad is not None and output.grad.abs().sum() > 0 for output in outputs), "no output is left out"


def test_terms_of_the_ablations() -> None:
    outputs, targets = outputs_and_targets(2)
    joint, intra = MAMLLoss(F.cross_entropy, WEIGHTS, 2, intra_weight=0).terms(outputs, targets)
    assert joint is not None and joint.item() == F.cross_entropy(outputs[0], targets[0]).item() and intra == []
    joint, intra = MAMLLoss(F.cross_entropy, WEIGHTS, 2, intra_weight=1, joint_weight=0).terms(outputs, targets)
    assert joint is None and len(intra) == 2


def test_a_level_of_weight_0_is_not_computed() -> None:
    outputs, targets = outputs_and_targets(1)
    MAMLLoss(F.cross_entropy, (2, 1, 0), 1)(outputs, targets).backward()
    assert [output.grad is not None for output in outputs] == [True, True, True, False]


@pytest.mark.parametrize("num_streams", [1, 3])
def test_present_streams_only(num_streams: int) -> None:
    outputs, targets = outputs_and_targets(num_streams)
    loss = MAMLLoss(F.cross_entropy, WEIGHTS, 2)
    assert len(loss.terms(outputs, targets, num_streams)[1]) == num_streams
    with pytest.raises(ValueError, match=f"{1 + 3 * num_streams} outputs and 3 targets for .* 2 streams"):
        loss(outputs, targets)


@pytest.mark.parametrize(("num_outputs", "num_targets"), [(6, 3), (8, 3), (3, 3), (1, 1), (7, 2), (7, 4), (0, 0)])
def test_nothing_is_left_out_silently(num_outputs: int, num_targets: int) -> None:
    outputs, targets = outputs_and_targets(3)
    message = f"{num_outputs} outputs and {num_targets} targets .* there must be 7 and 3"
    with pytest.raises(ValueError, match=message):
        MAMLLoss(F.cross_entropy, WEIGHTS, 2)(outputs[:num_outputs], (targets * 2)[:num_targets])


@pytest.mark.parametrize("weights", [[], [0.0], [float("nan")]])
def test_weights_without_a_sum(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="must have a positive sum"):
        MAMLLoss(F.cross_entropy, weights, 2)
