from __future__ import annotations

import pytest
import torch

from nnunet_ext.architectures.position_embedding import PositionEmbedding


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("kind", ["full", "factorised"])
def test_adds_one_vector_per_token(kind, class_token):
    layer = PositionEmbedding((2, 3, 4), 5, kind=kind, class_token=class_token)
    tokens = torch.zeros(2, 24 + class_token, 5)
    out = layer(tokens)
    assert out.shape == tokens.shape
    assert len(out[0].unique(dim=0)) == 24 + class_token


def test_factorised_is_the_sum_over_the_axes_in_row_major_order():
    layer = PositionEmbedding((2, 3, 4), 5, kind="factorised", class_token=True)
    depth, height, width = layer.axes
    index = (1 * 3 + 2) * 4 + 3
    expected = depth[1] + height[2] + width[3]
    torch.testing.assert_close(layer.embedding()[0, 1 + index], expected)
    torch.testing.assert_close(layer.embedding()[0, 0], layer.class_vector[0, 0])


def test_unknown_kind():
    with pytest.raises(ValueError, match="position_embedding='sine'"):
        PositionEmbedding((2, 2), 4, kind="sine")
