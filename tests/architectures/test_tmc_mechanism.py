"""What the method is for: two things look alike, and the sentence says which of them is meant."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_tmc import sentence, tiny_tmc

from nnunet_ext.losses.alignment import alignment_loss

LEFT, RIGHT = 4, 5
STRIDES = (4, 8, 16, 32)


def two_discs(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a disc in each half (B, 1, 64, 64), the one that is meant, and the sentence that says so."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    x, target, tokens = 0.3 * torch.randn(batch, 1, 64, 64, generator=generator), torch.zeros(batch, 1, 64, 64), []
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    for i in range(batch):
        meant = draw(0, 2)
        for side in range(2):
            row, column, radius = draw(8, 56), draw(8, 24) + 32 * side, draw(4, 7)
            disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            x[i, 0][disc] += 1.5
            if side == meant:
                target[i, 0][disc] = 1
        tokens.append(sentence((LEFT, RIGHT)[meant]))
    return x, target, torch.cat(tokens)


def dice(p: Tensor, target: Tensor) -> Tensor:
    return (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)


@pytest.mark.slow
def test_the_sentence_decides_which_disc_is_meant() -> None:
    net = tiny_tmc(swin_width=16, bert_width=32)
    optimizer, generator = torch.optim.AdamW(net.parameters(), lr=2e-3), torch.Generator().manual_seed(0)
    for _ in range(250):
        x, target, tokens = two_discs(8, generator)
        logits, alignment = net(x, tokens=tokens, return_alignment=True)
        align = alignment_loss(
            "pixel",
            **alignment._asdict(),
            tokens=tokens,
            target=target,
            log_scales=net.alignment_scale,
            biases=net.alignment_bias,
            strides=STRIDES,
        )
        loss = F.cross_entropy(logits, target[:, 0].long()) - dice(logits.softmax(1)[:, 1:], target) + align
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    x, target, tokens = two_discs(16, torch.Generator().manual_seed(1))
    other = torch.where(tokens == LEFT, RIGHT, torch.where(tokens == RIGHT, LEFT, tokens))
    with torch.no_grad():
        true, false = (dice((net(x, tokens=t).argmax(1, True) == 1).float(), target) for t in (tokens, other))
    assert true > 0.9 and false < 0.1
