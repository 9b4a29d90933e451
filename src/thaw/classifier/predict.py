"""From image files to predictions: streaming, in order, one row per file whatever happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.predictor import BATCH, Predictor
from thaw.data.decode import decode
from thaw.device import worker_count
from thaw.errors import UnreadableImage
from thaw.features.engines import REFERENCE

THRESHOLD = 0.5
AHEAD = 2
"""Batches that are being read while one is classified: with two, a slow file does not let the engine wait."""


@dataclass(frozen=True)
class Prediction:
    """What the classifier says about one file.

    `status` is "ok", or "error" with its `reason` and nothing else. `labels` holds the one label, or for multilabel
    every label at 0.5 or more. `confidence` is the probability of the label, or of the least sure decision.
    `probabilities` are in class order, 0..1.
    """

    path: Path
    status: str
    reason: str = ""
    labels: tuple[str, ...] = ()
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The labels as one text, joined by `|`."""
        return "|".join(self.labels)


def predict_files(
    classifier: Classifier, files: Iterable[Path], batch_size: int = BATCH, predictor: Predictor | None = None
) -> Generator[Prediction]:
    """Predictions for files, in order, in plain fp32 PyTorch where no `predictor` is given.

    Memory does not grow with the number of files: they are read a few batches ahead of the one that is classified.
    """
    predictor = predictor or Predictor(classifier, REFERENCE, classifier.device)
    with closing(read_files(classifier, files, batch_size)) as batches:
        for batch in batches:
            probabilities = iter(predictor.probabilities(batch.pixels) if len(batch.pixels) else ())
            for file, reason in zip(batch.files, batch.reasons, strict=True):
                if reason is None:
                    yield _decide(classifier, file, next(probabilities))
                else:
                    yield Prediction(file, "error", reason)


@dataclass(frozen=True)
class Batch:
    """Files, for each the reason why it cannot be read or `None`, and pixels (N, S, S, 3) uint8 of those that can."""

    files: tuple[Path, ...]
    reasons: tuple[str | None, ...]
    pixels: np.ndarray


def read_files(classifier: Classifier, files: Iterable[Path], batch_size: int) -> Generator[Batch]:
    """Files in order, decoded in batches by as many threads as there are cores, which stay `AHEAD` batches ahead."""
    remaining, size = iter(files), classifier.backbone.facts.pixels.size
    pool = ThreadPoolExecutor(max_workers=worker_count())
    waiting: deque[tuple[list[Path], np.ndarray, list[Future[str | None]]]] = deque()
    try:
        while True:
            while len(waiting) <= AHEAD and (following := list(islice(remaining, batch_size))):
                pixels = np.empty((len(following), size, size, 3), np.uint8)
                reasons = [pool.submit(_read, classifier, *item) for item in zip(following, pixels, strict=True)]
                waiting.append((following, pixels, reasons))
            if not waiting:
                return
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(files: list[Path], pixels: np.ndarray, futures: list[Future[str | None]]) -> Batch:
    """A batch once its files are read, without the rows of those that cannot be."""
    reasons = tuple(future.result() for future in futures)
    readable = [reason is None for reason in reasons]
    return Batch(tuple(files), reasons, pixels[readable] if not all(readable) else pixels)


def _read(classifier: Classifier, file: Path, row: np.ndarray) -> str | None:
    """Put the plain view of a file into a row (S, S, 3), or give the reason why there is none."""
    spec = classifier.backbone.facts.pixels
    try:
        row[...] = spec.crop(decode(file.read_bytes(), classifier.decode, spec).pixels)
    except UnreadableImage as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _decide(classifier: Classifier, file: Path, row: np.ndarray) -> Prediction:
    if classifier.task == "multilabel":
        labels = tuple(name for name, value in zip(classifier.classes, row, strict=True) if value >= THRESHOLD)
        confidence = float(np.maximum(row, 1.0 - row).min())
    else:
        labels = (classifier.classes[int(row.argmax())],)
        confidence = float(row.max())
    return Prediction(file, "ok", "", labels, confidence, tuple(row.tolist()))
