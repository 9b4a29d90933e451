"""Dynamic batching: images of many requests, classified together by the one thread that touches the model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Answer = TypeVar("Answer")


class Full(Exception):
    """There is no place left; `seconds` is about when there will be."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"full for about {seconds:.1f} s")
        self.seconds = seconds


@dataclass(frozen=True)
class _Waiting(Generic[Answer]):
    """One image (S, S, 3) uint8 and where its answer goes."""

    pixels: np.ndarray
    answer: Future[Answer]


class Batcher(Generic[Answer]):
    """A bounded queue in front of `run`, which takes pixels (N, S, S, 3) uint8 and gives N answers.

    A place is taken with `places` before an image is decoded, and is free again when its future is done, so that
    decoding, waiting and classifying together never hold more than `capacity` images. A batch waits for more only
    while images are still on their way, and at most `wait` seconds: a lone request is never held up.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Sequence[Answer]],
        size: int,
        capacity: int,
        wait: float,
        on_batch: Callable[[int], None],
    ) -> None:
        self._run = run
        self._size = size
        self._capacity = capacity
        self._wait = wait
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._queue: deque[_Waiting[Answer]] = deque()
        self._alone: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._taken = 0
        self._is_closing = False
        self._seconds_an_image = 0.0
        self._thread = threading.Thread(target=self._work, name="thaw-batches", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer everything that was accepted, then end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_open(self) -> bool:
        """Whether it takes images."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken

    def places(self, count: int) -> list[Future[Answer]]:
        """Take places, or none at all: raises `Full`. Every future has to be given to `put` or failed."""
        with self._changed:
            if self._is_closing or self._taken + count > self._capacity:
                raise Full(self._taken * self._seconds_an_image)
            self._taken += count
        futures: list[Future[Answer]] = [Future() for _ in range(count)]
        for future in futures:
            future.add_done_callback(self._leave)
        return futures

    def put(self, pixels: np.ndarray, answer: Future[Answer]) -> None:
        """Queue an image (S, S, 3) uint8 for its place."""
        with self._changed:
            self._queue.append(_Waiting(pixels, answer))
            self._changed.notify_all()

    def run_alone(self, job: Callable[[], Any]) -> Future[Any]:
        """Run something else that touches the model, between two batches."""
        future: Future[Any] = Future()
        with self._changed:
            if self._is_closing:
                raise Full(0.0)
            self._alone.append((job, future))
            self._changed.notify_all()
        return future

    def _leave(self, _: Future[Answer]) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def _work(self) -> None:
        while self._await_work():
            if self._alone:
                self._run_job(*self._alone.popleft())
            if batch := self._next_batch():
                self._answer(batch)

    def _await_work(self) -> bool:
        with self._changed:
            while not self._queue and not self._alone:
                if self._is_closing and self._taken == 0:
                    return False
                self._changed.wait()
        return True

    def _next_batch(self) -> list[_Waiting[Answer]]:
        deadline = time.monotonic() + self._wait
        with self._changed:
            while self._queue and len(self._queue) < min(self._size, self._taken):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]

    def _answer(self, batch: list[_Waiting[Answer]]) -> None:
        began = time.monotonic()
        try:
            answers = self._run(np.stack([waiting.pixels for waiting in batch]))
        except Exception as error:
            for waiting in batch:
                waiting.answer.set_exception(error)
            return
        seconds = (time.monotonic() - began) / len(batch)
        self._seconds_an_image = 0.8 * self._seconds_an_image + 0.2 * seconds if self._seconds_an_image else seconds
        self._on_batch(len(batch))
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.answer.set_result(answer)

    def _run_job(self, job: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)
