"""The order of the triangle, pinned by explicit small matrices."""

import pytest
import torch

from timm_3g.ops import TRIANGLES, sym_to_vec, triangle_index

MAT = torch.tensor([[0, 1, 2], [10, 11, 12], [20, 21, 22]])
ORDERS = {
    'lower': [0, 10, 11, 20, 21, 22],
    'upper': [0, 1, 2, 11, 12, 22],
    'full': [0, 1, 2, 10, 11, 12, 20, 21, 22],
}


@pytest.mark.parametrize('triangle', TRIANGLES)
def test_order(triangle):
    assert sym_to_vec(MAT, triangle_index(3, triangle)).tolist() == ORDERS[triangle]


def test_flat_positions_of_the_public_codes():
    assert triangle_index(3, 'lower').tolist() == [0, 3, 4, 6, 7, 8]  # 3G-Net
    assert triangle_index(3, 'upper').tolist() == [0, 1, 2, 4, 5, 8]  # fast-MPN-COV


@pytest.mark.parametrize('shape', [(3, 3), (2, 3, 3), (4, 2, 3, 3)])
def test_leading_dimensions(shape):
    assert sym_to_vec(torch.zeros(shape), triangle_index(3, 'upper')).shape == (*shape[:-2], 6)


@pytest.mark.parametrize('triangle', TRIANGLES)
def test_length_and_meta_device(triangle):
    index = triangle_index(16, triangle, 'meta')
    assert index.device.type == 'meta'
    assert index.numel() == (256 if triangle == 'full' else 136)


def test_unknown_triangle():
    with pytest.raises(ValueError, match=r"triangle must be one of lower, upper, full; got 'left'"):
        triangle_index(3, 'left')
