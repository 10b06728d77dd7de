"""Eight views, all different, each of which leads back."""

import pytest
import torch

from cytovox.preprocess.square_symmetries import VIEWS, unview, view


@pytest.mark.parametrize("number", range(VIEWS + 1))
def test_a_view_leads_back(number):
    values = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    assert torch.equal(unview(view(values, number), number), values)


def test_the_views_are_all_different():
    values = torch.arange(16).reshape(4, 4)
    assert len({tuple(view(values, n).flatten().tolist()) for n in range(VIEWS)}) == VIEWS
    assert torch.equal(view(values, 0), values)
    assert torch.equal(view(values, VIEWS), values)
