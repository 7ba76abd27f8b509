import io
import random

import numpy as np
import torch

from nnunet_ext.trainers.randomness import random_state, restore_random_state, seed_everything


def draw() -> tuple[float, float, float, float]:
    return random.random(), float(np.random.normal()), float(np.random.rand()), float(torch.rand(()))


def test_the_state_survives_a_safe_load_and_repeats_the_draws() -> None:
    seed_everything(2**40 + 3)
    np.random.normal()  # leaves a cached second value
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    expected = [draw() for _ in range(3)]
    buffer.seek(0)
    restore_random_state(torch.load(buffer, weights_only=True))
    assert [draw() for _ in range(3)] == expected
