import math

import pytest
import torch

from nnunet_ext.losses.classification import classification_loss


def test_multilabel_is_the_mean_binary_cross_entropy() -> None:
    logits, labels = torch.tensor([[0.3, -1.2], [2.0, 0.1]]), torch.tensor([[1, 0], [1, 1]])
    naive = 0.0
    for row in range(2):
        for column in range(2):
            p = 1 / (1 + math.exp(-logits[row, column]))
            naive -= math.log(p) if labels[row, column] else math.log(1 - p)
    assert classification_loss(logits, labels, "multilabel").item() == pytest.approx(naive / 4, abs=1e-6)


def test_multiclass_is_the_softmax_cross_entropy() -> None:
    logits, labels = torch.tensor([[0.3, -1.2, 0.5], [2.0, 0.1, 0.0]]), torch.tensor([2, 0])
    naive = -sum(
        math.log(math.exp(row[k]) / sum(map(math.exp, row))) for row, k in zip(logits.tolist(), [2, 0], strict=True)
    )
    assert classification_loss(logits, labels, "multiclass").item() == pytest.approx(naive / 2, abs=1e-6)


def test_half_precision_logits_and_unknown_task() -> None:
    logits = torch.tensor([[30000.0, 0.0]], dtype=torch.float16)
    assert classification_loss(logits, torch.tensor([0]), "multiclass").dtype == torch.float32
    with pytest.raises(ValueError, match="task='regression'"):
        classification_loss(logits, torch.tensor([0]), "regression")
