"""The classifier behind the server: image files in, predictions out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import ModelOutputs
from thaw.cores import worker_count
from thaw.errors import BackboneError, UnreadableImage
from thaw.evaluation.explain import class_maps
from thaw.evaluation.overlays import as_png, overlay
from thaw.formats import listed
from thaw.prediction.predict import Prediction, to_predictions, view_of
from thaw.prediction.predictor import reference_predictor
from thaw.serve.batching import Batcher, QueueFull
from thaw.serve.limits import Limits
from thaw.serve.metrics import Baseline, Metrics
from thaw.web.limits import RequestRefused

_CLASSES_NAMED = 20

Result = TypeVar("Result")
Infer = Callable[[np.ndarray], ModelOutputs]
"""Outputs of the network for pixels (N, S, S, 3) uint8."""
Explain = Callable[[Classifier, np.ndarray, np.ndarray], np.ndarray]
"""Evidence for class indices (N,) in pixels (N, S, S, 3) uint8: maps (N, h, w) 0..1."""


class Service:
    """Decodes files in a thread pool and classifies them in batches, within `limits`."""

    def __init__(
        self,
        classifier: Classifier,
        name: str,
        limits: Limits,
        infer: Infer | None = None,
        explain: Explain = class_maps,
        baseline: Baseline | None = None,
    ) -> None:
        """Create the service; it accepts images after `start`.

        Args:
            classifier: The classifier.
            name: Name of the model in replies.
            limits: Bounds on memory and waiting time.
            infer: What runs the network; by default the engine that defines its probabilities.
            explain: What computes maps of evidence.
            baseline: Predictions on validation, for the drift metrics.
        """
        self.classifier = classifier
        self.name = name
        self.limits = limits
        self.metrics = Metrics(classifier.classes, classifier.task, baseline)
        self._infer = infer or reference_predictor(classifier).outputs
        self._explain = explain
        self._batcher: Batcher[Prediction] = Batcher(
            self._classify, limits.batch, limits.queue, limits.wait_ms / 1000, self.metrics.batch
        )
        self._pool = ThreadPoolExecutor(worker_count(), "thaw-decode")
        self._explanations = 0
        self.metrics.watch_queue(lambda: self._batcher.reserved)

    @property
    def is_ready(self) -> bool:
        """Whether images are accepted."""
        return self._batcher.is_open

    def start(self) -> None:
        """Warm up, so that the first request is as fast as later ones, then accept images."""
        side = self.classifier.backbone.facts.pixels.size
        for images in {1, self.limits.batch}:
            self._classify(np.zeros((images, side, side, 3), np.uint8))
        self._batcher.start()

    def close(self) -> None:
        """Classify all accepted images, then stop."""
        self._batcher.close()
        self._pool.shutdown()

    async def classify(self, files: Sequence[bytes]) -> list[Prediction]:
        """A prediction for each encoded image.

        Raises:
            RequestRefused: An image cannot be read, or the queue cannot take all of them.
        """
        futures = self._reserve(len(files))
        for file, future in zip(files, futures, strict=True):
            self._pool.submit(self._decode_into, file, future)
        # Gathered with their exceptions, so that accepted images are classified even if another one is unreadable.
        results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        predictions = [result for result in results if not isinstance(result, BaseException)]
        for prediction in predictions:
            self.metrics.predicted(prediction.labels, prediction.confidence)
        for number, result in enumerate(results):
            if isinstance(result, UnreadableImage):
                which = f"image {number}: " if len(files) > 1 else ""
                raise RequestRefused(422, "unreadable_image", f"{which}{result}") from result
            if isinstance(result, BaseException):
                raise result
        return predictions

    async def explain(self, file: bytes, label: str | None) -> bytes:
        """The network's input with a map of the evidence for a class, by default the likeliest label, as PNG.

        Raises:
            RequestRefused: The class is unknown, the image cannot be read, or too many explanations are waiting.
        """
        if label is not None and label not in self.classifier.classes:
            known = listed(self.classifier.classes, _CLASSES_NAMED)
            raise RequestRefused(422, "bad_request", f"there is no such class; the classes are {known}")
        if self._explanations >= self.limits.explanations:
            raise RequestRefused(503, "saturated", "too many requests; try again in a moment", retry_after=1)
        self._explanations += 1
        try:
            pixels = await self.in_pool(partial(view_of, self.classifier, file))
            return await asyncio.wrap_future(self._batcher.run_alone(lambda: self._explained(pixels, label)))
        except UnreadableImage as error:
            raise RequestRefused(422, "unreadable_image", str(error)) from error
        except BackboneError as error:
            raise RequestRefused(404, "not_found", str(error)) from error
        except QueueFull as full:
            raise _saturated(full) from full
        finally:
            self._explanations -= 1

    async def in_pool(self, job: Callable[[], Result]) -> Result:
        """Run a short job in the thread pool, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def _reserve(self, images: int) -> list[Future[Prediction]]:
        if images > self.limits.queue:
            raise RequestRefused(413, "too_many_images", f"{images} images; a request may have {self.limits.queue}")
        try:
            return self._batcher.reserve(images)
        except QueueFull as full:
            raise _saturated(full) from full

    def _decode_into(self, file: bytes, future: Future[Prediction]) -> None:
        """Queue the pixels of a file, or fail its future."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            pixels = view_of(self.classifier, file)
        except Exception as error:
            future.set_exception(error)
        else:
            self._batcher.put(pixels, future)

    def _classify(self, pixels: np.ndarray) -> list[Prediction]:
        return to_predictions(self.classifier, [Path()] * len(pixels), self._infer(pixels))

    def _explained(self, pixels: np.ndarray, label: str | None) -> bytes:
        batch, decision = np.stack([pixels]), self.classifier.decision
        if label:
            indices = np.array([self.classifier.classes.index(label)])
        else:
            indices = decision.top_labels(self._infer(batch).probabilities, self.classifier.task)
        (class_map,) = self._explain(self.classifier, batch, indices)
        return as_png(overlay(pixels, class_map))


def _saturated(full: QueueFull) -> RequestRefused:
    return RequestRefused(503, "saturated", "too many requests; try again in a moment", max(1, ceil(full.seconds)))
