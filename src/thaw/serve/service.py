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
from thaw.classifier.predict import decide, predict_pixels
from thaw.data.decode import decode
from thaw.device import worker_count
from thaw.errors import UnreadableImage
from thaw.serve.batching import Batcher, Full
from thaw.serve.heat import heat_picture
from thaw.serve.limits import Limits, Refusal
from thaw.serve.metrics import Baseline, Metrics

Result = TypeVar("Result")
Predict = Callable[[np.ndarray], np.ndarray]
"""Probabilities (N, classes) float 0..1 for pixels (N, S, S, 3) uint8."""
Unlike = Callable[[np.ndarray], np.ndarray]
"""Whether each image of pixels (N, S, S, 3) uint8 is unlike all that the classifier was trained on, (N,) bool."""
Explain = Callable[[Classifier, np.ndarray, np.ndarray], np.ndarray]
"""What speaks for class indices (N,) in pixels (N, S, S, 3) uint8: maps (N, h, w) 0..1."""


@dataclass(frozen=True)
class Abilities:
    """What a server can do beside predicting as the classifier itself does; `None` where it cannot.

    predict: a faster way to the same probabilities.
    """

    predict: Predict | None = None
    unlike: Unlike | None = None
    explain: Explain | None = None


@dataclass(frozen=True)
class Answer:
    """What is said about one image; `unlike` is `None` where nobody can tell. Probabilities (classes,) float32."""

    labels: tuple[str, ...]
    confidence: float
    probabilities: np.ndarray
    unlike: bool | None


class Service:
    """Decodes in a pool of threads and classifies in batches; everything is bounded by `limits`."""

    def __init__(
        self,
        classifier: Classifier,
        name: str,
        limits: Limits,
        abilities: Abilities | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        self.classifier = classifier
        self.name = name
        self.limits = limits
        self.metrics = Metrics(classifier.classes, baseline)
        self._abilities = abilities or Abilities()
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

    @property
    def can_explain(self) -> bool:
        """Whether `explain` works."""
        return self._abilities.explain is not None

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
        """An answer for each file; raises `Refusal` when one is no image, or when there is no place for all of them."""
        futures = self._places(len(files))
        for file, future in zip(files, futures, strict=True):
            self._pool.submit(self._decode_into, file, future)
        # Gathered with their failures: an image that was accepted is answered even where another one was not read.
        results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        answers = []
        for number, result in enumerate(results):
            if isinstance(result, UnreadableImage):
                which = f"image {number}: " if len(files) > 1 else ""
                raise Refusal(422, "unreadable_image", f"{which}{result}") from result
            if isinstance(result, BaseException):
                raise result
            self.metrics.predicted(result.labels, result.confidence)
            answers.append(result)
        return answers

    async def explain(self, file: bytes, label: str | None) -> bytes:
        """What the network saw with a map of what speaks for a class, the predicted one by default, as PNG."""
        if self._abilities.explain is None:
            raise Refusal(404, "not_found", "this server cannot explain its answers")
        if label is not None and label not in self.classifier.classes:
            raise Refusal(422, "bad_request", "there is no such class")
        if self._explanations >= self.limits.explanations:
            raise Refusal(503, "saturated", "all places are taken; ask again in a moment", retry_after=1)
        self._explanations += 1
        try:
            pixels = await self.in_pool(partial(self._view, file))
            return await asyncio.wrap_future(self._batcher.run_alone(lambda: self._explained(pixels, label)))
        except UnreadableImage as error:
            raise Refusal(422, "unreadable_image", str(error)) from error
        except Full as full:
            raise _saturated(full) from full
        finally:
            self._explanations -= 1

    async def in_pool(self, job: Callable[[], Result]) -> Result:
        """Run a short job beside the event loop, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def _places(self, count: int) -> list[Future[Answer]]:
        if count > self.limits.queue:
            raise Refusal(413, "too_many_images", f"{count} images; a request may hold {self.limits.queue}")
        try:
            return self._batcher.places(count)
        except Full as full:
            raise _saturated(full) from full

    def _decode_into(self, file: bytes, answer: Future[Answer]) -> None:
        """Queue what a file shows, or fail its answer."""
        if not answer.set_running_or_notify_cancel():
            return
        try:
            pixels = self._view(file)
        except Exception as error:
            answer.set_exception(error)
        else:
            self._batcher.put(pixels, answer)

    def _view(self, file: bytes) -> np.ndarray:
        """The plain view (S, S, 3) uint8 of a file; raises `UnreadableImage`."""
        spec = self.classifier.backbone.facts.pixels
        return spec.crop(decode(file, self.classifier.decode, spec).pixels)

    def _classify(self, pixels: np.ndarray) -> list[Answer]:
        rows = self._probabilities(pixels)
        unlike = self._abilities.unlike(pixels) if self._abilities.unlike else [None] * len(rows)
        answers = []
        for row, strange in zip(rows, unlike, strict=True):
            said = decide(self.classifier, Path(), row)
            answers.append(Answer(said.labels, said.confidence, row, None if strange is None else bool(strange)))
        return answers

    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        if self._abilities.predict:
            return self._abilities.predict(pixels)
        return predict_pixels(self.classifier, pixels)

    def _explained(self, pixels: np.ndarray, label: str | None) -> bytes:
        assert self._abilities.explain is not None
        batch = np.stack([pixels])
        classes = self.classifier.classes
        index = classes.index(label) if label else int(self._probabilities(batch)[0].argmax())
        (heat,) = self._abilities.explain(self.classifier, batch, np.array([index]))
        return heat_picture(pixels, heat)


def _saturated(full: Full) -> Refusal:
    return Refusal(503, "saturated", "all places are taken; ask again in a moment", max(1, ceil(full.seconds)))
