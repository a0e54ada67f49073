"""Places in a table, by torch and by the operators that an export has."""

import pytest
import torch

from semipix.functional.searching import binary_search, count_at_most


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 62])
def test_the_search_of_an_export_finds_the_places_of_torch(size: int) -> None:
    draw = torch.Generator().manual_seed(size)
    table = torch.rand(size, generator=draw).sort().values
    values = torch.cat([table, table - 1e-3, torch.rand(50, generator=draw), torch.tensor([-1.0, 2.0])]).view(1, 1, -1)
    wanted = torch.searchsorted(table, values, right=True)
    assert torch.equal(count_at_most(table, values), wanted)
    assert torch.equal(binary_search(table, values), wanted)


def test_equal_numbers_count_each() -> None:
    table = torch.tensor([0.0, 1.0, 1.0, 2.0])
    assert binary_search(table, torch.tensor([1.0, 0.5])).tolist() == [3, 1]
