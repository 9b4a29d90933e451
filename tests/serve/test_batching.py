import threading
import time
from concurrent.futures import Future, wait

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.serve.batching import Batcher, QueueFull


def mean_of(pixels: np.ndarray) -> list[float]:
    return [float(value) for value in pixels.mean(axis=(1, 2, 3))]


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def submit(batcher: Batcher[float], value: int) -> Future[float]:
    (place,) = batcher.reserve(1)
    batcher.put(image(value), place)
    return place


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(1, 7))
def test_every_image_gets_its_own_result_in_batches_of_limited_size(values: list[int], size: int) -> None:
    sizes: list[int] = []
    batcher = Batcher(mean_of, size, 40, 0.001, sizes.append)
    batcher.start()
    futures = [submit(batcher, value) for value in values]
    batcher.close()
    assert [future.result(0) for future in futures] == values
    assert sum(sizes) == len(values) and max(sizes, default=1) <= size


def test_waiting_images_are_classified_together() -> None:
    gate, sizes = threading.Event(), []

    def run(pixels: np.ndarray) -> list[float]:
        gate.wait(5)
        return mean_of(pixels)

    batcher = Batcher(run, 8, 32, 0.0, sizes.append)
    batcher.start()
    futures = [submit(batcher, 0)]
    time.sleep(0.1)
    futures += [submit(batcher, value) for value in range(16)]
    gate.set()
    wait(futures, 5)
    batcher.close()
    assert sizes == [1, 8, 8]


def test_a_single_image_is_not_delayed_but_a_batch_waits_for_reserved_ones() -> None:
    sizes: list[int] = []
    batcher = Batcher(mean_of, 8, 32, 5.0, sizes.append)
    batcher.start()
    began = time.perf_counter()
    submit(batcher, 1).result(5)
    assert time.perf_counter() - began < 2.5
    first, second = batcher.reserve(2)
    batcher.put(image(1), first)
    time.sleep(0.05)
    batcher.put(image(2), second)
    assert (first.result(4), second.result(4)) == (1.0, 2.0)
    batcher.close()
    assert sizes == [1, 2]


def test_the_queue_is_bounded_and_places_are_freed() -> None:
    batcher = Batcher(mean_of, 2, 3, 0.0, lambda _: None)
    batcher.start()
    places = batcher.reserve(3)
    with pytest.raises(QueueFull):
        batcher.reserve(1)
    places[0].set_exception(ValueError("not an image"))
    assert batcher.reserved == 2
    with pytest.raises(QueueFull):
        batcher.reserve(2)
    for place in places[1:]:
        batcher.put(image(3), place)
    wait(places, 5)
    assert batcher.reserved == 0
    batcher.close()
    with pytest.raises(QueueFull):
        batcher.reserve(1)


def test_a_failing_batch_fails_only_its_own_images() -> None:
    def run(pixels: np.ndarray) -> list[float]:
        if pixels.min() == 13:
            raise RuntimeError("unlucky")
        return mean_of(pixels)

    batcher = Batcher(run, 1, 8, 0.0, lambda _: None)
    batcher.start()
    bad, good = submit(batcher, 13), submit(batcher, 7)
    assert good.result(5) == 7.0
    with pytest.raises(RuntimeError, match="unlucky"):
        bad.result(5)
    batcher.close()


def test_other_jobs_run_between_batches_on_the_same_thread() -> None:
    threads = set()

    def run(pixels: np.ndarray) -> list[float]:
        threads.add(threading.get_ident())
        return mean_of(pixels)

    batcher = Batcher(run, 2, 8, 0.0, lambda _: None)
    batcher.start()
    futures = [submit(batcher, value) for value in range(4)]
    assert batcher.run_alone(threading.get_ident).result(5) in threads | {batcher._thread.ident}
    with pytest.raises(ZeroDivisionError):
        batcher.run_alone(lambda: 1 / 0).result(5)
    wait(futures, 5)
    batcher.close()
    assert threads == {batcher._thread.ident}
