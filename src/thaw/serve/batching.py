"""Dynamic batching: images of many requests are classified together, by the only thread that uses the model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Result = TypeVar("Result")


class QueueFull(Exception):
    """The queue has no room; `seconds` estimates when it will have."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"full for about {seconds:.1f} s")
        self.seconds = seconds


@dataclass(frozen=True)
class _Item(Generic[Result]):
    """One image (S, S, 3) uint8 and the future of its result."""

    pixels: np.ndarray
    future: Future[Result]


class Batcher(Generic[Result]):
    """A bounded queue in front of a function that takes pixels (N, S, S, 3) uint8 and returns N results.

    A place is reserved before an image is decoded and freed when its future is done, so that at most `capacity` images
    are being decoded, waiting or being classified. A batch waits for more images only while some are still being
    decoded, for at most `wait` seconds: a single request is never delayed.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Sequence[Result]],
        size: int,
        capacity: int,
        wait: float,
        on_batch: Callable[[int], None],
    ) -> None:
        """Create the queue.

        Args:
            run: Classifies a batch.
            size: Largest batch.
            capacity: Images in the queue at most.
            wait: Seconds that a batch waits for further images.
            on_batch: Called with the size of every batch.
        """
        self._run = run
        self._size = size
        self._capacity = capacity
        self._wait = wait
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._queue: deque[_Item[Result]] = deque()
        self._alone: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._reserved = 0
        self._is_closing = False
        self._seconds_per_image = 0.0
        self._thread = threading.Thread(target=self._work, name="thaw-batches", daemon=True)

    def start(self) -> None:
        """Start classifying."""
        self._thread.start()

    def close(self) -> None:
        """Classify all accepted images, then stop."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_open(self) -> bool:
        """Whether images are accepted."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def reserved(self) -> int:
        """Reserved places."""
        return self._reserved

    def reserve(self, count: int) -> list[Future[Result]]:
        """Reserve places for some images, all or none; the caller passes every future to `put` or fails it.

        Raises:
            QueueFull: There is not enough room.
        """
        with self._changed:
            if self._is_closing or self._reserved + count > self._capacity:
                raise QueueFull(self._reserved * self._seconds_per_image)
            self._reserved += count
        futures: list[Future[Result]] = [Future() for _ in range(count)]
        for future in futures:
            future.add_done_callback(self._free)
        return futures

    def put(self, pixels: np.ndarray, future: Future[Result]) -> None:
        """Queue an image (S, S, 3) uint8 under a reserved future."""
        with self._changed:
            self._queue.append(_Item(pixels, future))
            self._changed.notify_all()

    def run_alone(self, job: Callable[[], Any]) -> Future[Any]:
        """Run another function that uses the model, between two batches."""
        future: Future[Any] = Future()
        with self._changed:
            if self._is_closing:
                raise QueueFull(0.0)
            self._alone.append((job, future))
            self._changed.notify_all()
        return future

    def _free(self, _: Future[Result]) -> None:
        with self._changed:
            self._reserved -= 1
            self._changed.notify_all()

    def _work(self) -> None:
        while self._await_work():
            if self._alone:
                self._run_job(*self._alone.popleft())
            if batch := self._next_batch():
                self._classify(batch)

    def _await_work(self) -> bool:
        with self._changed:
            while not self._queue and not self._alone:
                if self._is_closing and self._reserved == 0:
                    return False
                self._changed.wait()
        return True

    def _next_batch(self) -> list[_Item[Result]]:
        deadline = time.monotonic() + self._wait
        with self._changed:
            while self._queue and len(self._queue) < min(self._size, self._reserved):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]

    def _classify(self, batch: list[_Item[Result]]) -> None:
        began = time.monotonic()
        try:
            results = self._run(np.stack([item.pixels for item in batch]))
        except Exception as error:
            for item in batch:
                item.future.set_exception(error)
            return
        seconds = (time.monotonic() - began) / len(batch)
        self._seconds_per_image = 0.8 * self._seconds_per_image + 0.2 * seconds if self._seconds_per_image else seconds
        self._on_batch(len(batch))
        for item, result in zip(batch, results, strict=True):
            item.future.set_result(result)

    def _run_job(self, job: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)
