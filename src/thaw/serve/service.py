"""A classifier at work: files of images in, answers out, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import ModelOutputs
from thaw.device import worker_count
from thaw.errors import BackboneError, UnreadableImage
from thaw.evaluation.explain import class_maps
from thaw.evaluation.overlays import as_png, overlay
from thaw.features.engines import REFERENCE
from thaw.prediction.predict import decide, view_of
from thaw.prediction.predictor import Predictor
from thaw.serve.batching import Batcher, Full
from thaw.serve.limits import Limits, RequestRefused
from thaw.serve.metrics import Baseline, Metrics

Result = TypeVar("Result")
Ask = Callable[[np.ndarray], ModelOutputs]
"""What the network says of pixels (N, S, S, 3) uint8."""
Explain = Callable[[Classifier, np.ndarray, np.ndarray], np.ndarray]
"""What speaks for class indices (N,) in pixels (N, S, S, 3) uint8: maps (N, h, w) 0..1."""


@dataclass(frozen=True)
class Answer:
    """What is said about one image.

    probabilities: (classes,) float32. candidates: the classes that it may have. unlike: whether it is unlike all that
    was trained on, `None` where the classifier cannot tell.
    """

    labels: tuple[str, ...]
    confidence: float
    probabilities: np.ndarray
    candidates: tuple[str, ...]
    out_of_distribution: bool | None


class Service:
    """Decodes in a pool of threads and classifies in batches; everything is bounded by `limits`."""

    def __init__(
        self,
        classifier: Classifier,
        name: str,
        limits: Limits,
        ask: Ask | None = None,
        explain: Explain = class_maps,
        baseline: Baseline | None = None,
    ) -> None:
        """`ask` is a faster way to what the classifier itself says."""
        self.classifier = classifier
        self.name = name
        self.limits = limits
        self.metrics = Metrics(classifier.classes, baseline)
        self._ask = ask or Predictor(classifier, REFERENCE, classifier.device).answers
        self._explain = explain
        self._batcher: Batcher[Answer] = Batcher(
            self._classify, limits.batch, limits.queue, limits.wait_ms / 1000, self.metrics.batch
        )
        self._pool = ThreadPoolExecutor(worker_count(), "thaw-decode")
        self._explanations = 0
        self.metrics.watch_queue(lambda: self._batcher.taken)

    @property
    def is_ready(self) -> bool:
        """Whether images are taken."""
        return self._batcher.is_open

    def start(self) -> None:
        """Make the first request as quick as the next ones, then take images."""
        side = self.classifier.backbone.facts.pixels.size
        for count in {1, self.limits.batch}:
            self._classify(np.zeros((count, side, side, 3), np.uint8))
        self._batcher.start()

    def close(self) -> None:
        """Answer everything that was accepted, then end."""
        self._batcher.close()
        self._pool.shutdown()

    async def classify(self, files: Sequence[bytes]) -> list[Answer]:
        """An answer for each file; raises `RequestRefused` when one is no image, or when there is no place for all of them."""
        futures = self._places(len(files))
        for file, future in zip(files, futures, strict=True):
            self._pool.submit(self._decode_into, file, future)
        # Gathered with their failures: an image that was accepted is answered even where another one was not read.
        results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        answers = []
        for number, result in enumerate(results):
            if isinstance(result, UnreadableImage):
                which = f"image {number}: " if len(files) > 1 else ""
                raise RequestRefused(422, "unreadable_image", f"{which}{result}") from result
            if isinstance(result, BaseException):
                raise result
            self.metrics.predicted(result.labels, result.confidence)
            answers.append(result)
        return answers

    async def explain(self, file: bytes, label: str | None) -> bytes:
        """What the network saw with a map of what speaks for a class, the predicted one by default, as PNG."""
        if label is not None and label not in self.classifier.classes:
            raise RequestRefused(422, "bad_request", "there is no such class")
        if self._explanations >= self.limits.explanations:
            raise RequestRefused(503, "saturated", "all places are taken; ask again in a moment", retry_after=1)
        self._explanations += 1
        try:
            pixels = await self.in_pool(partial(view_of, self.classifier, file))
            return await asyncio.wrap_future(self._batcher.run_alone(lambda: self._explained(pixels, label)))
        except UnreadableImage as error:
            raise RequestRefused(422, "unreadable_image", str(error)) from error
        except BackboneError as error:
            raise RequestRefused(404, "not_found", str(error)) from error
        except Full as full:
            raise _saturated(full) from full
        finally:
            self._explanations -= 1

    async def in_pool(self, job: Callable[[], Result]) -> Result:
        """Run a short job beside the event loop, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def _places(self, count: int) -> list[Future[Answer]]:
        if count > self.limits.queue:
            raise RequestRefused(413, "too_many_images", f"{count} images; a request may hold {self.limits.queue}")
        try:
            return self._batcher.places(count)
        except Full as full:
            raise _saturated(full) from full

    def _decode_into(self, file: bytes, answer: Future[Answer]) -> None:
        """Queue what a file shows, or fail its answer."""
        if not answer.set_running_or_notify_cancel():
            return
        try:
            pixels = view_of(self.classifier, file)
        except Exception as error:
            answer.set_exception(error)
        else:
            self._batcher.put(pixels, answer)

    def _classify(self, pixels: np.ndarray) -> list[Answer]:
        answers = self._ask(pixels)
        can_tell = self.classifier.review_policy is not None
        said = decide(self.classifier, [Path()] * len(pixels), answers)
        return [
            Answer(item.labels, item.confidence, row, item.candidates, item.out_of_distribution if can_tell else None)
            for item, row in zip(said, answers.probabilities, strict=True)
        ]

    def _explained(self, pixels: np.ndarray, label: str | None) -> bytes:
        batch, decision = np.stack([pixels]), self.classifier.decision
        if label:
            indices = np.array([self.classifier.classes.index(label)])
        else:
            indices = decision.foremost(self._ask(batch).probabilities, self.classifier.task)
        (class_map,) = self._explain(self.classifier, batch, indices)
        return as_png(overlay(pixels, class_map))


def _saturated(full: Full) -> RequestRefused:
    return RequestRefused(503, "saturated", "all places are taken; ask again in a moment", max(1, ceil(full.seconds)))
