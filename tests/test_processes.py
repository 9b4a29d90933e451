import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.processes import Process


@given(st.integers(0, 100), st.integers(1, 9))
def test_the_parts_of_all_processes_are_the_batch_in_order(size: int, count: int) -> None:
    batch = np.random.default_rng(size).permutation(size)
    parts = [Process(rank, count).part(batch) for rank in range(count)]
    assert np.concatenate(parts).tolist() == batch.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_only_rank_zero_is_the_main_process() -> None:
    assert Process().is_main and Process(0, 3).is_main and not Process(1, 3).is_main


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} of 2 processes"):
        Process(rank, 2)
