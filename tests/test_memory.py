import mmap

import numpy as np

from thaw.memory import measure_memory, obtainable_bytes


def test_what_was_freed_counts_for_the_peak_only() -> None:
    before = measure_memory()
    # Not from the heap, which may keep what is freed.
    with mmap.mmap(-1, 1 << 28) as block:
        np.frombuffer(block, np.uint8).fill(1)
        during = measure_memory()
    after = measure_memory()
    assert during.now - before.now > 200e6 and during.now - after.now > 200e6
    assert after.peak > during.now - 1e6


def test_a_process_can_get_what_it_holds_and_more() -> None:
    assert obtainable_bytes() > measure_memory().now
