"""From image files to predictions: streaming, in order, one row per file whatever happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import ModelOutputs
from thaw.data.decode import decode
from thaw.device import worker_count
from thaw.errors import UnreadableImage
from thaw.features.engines import REFERENCE
from thaw.prediction.predictor import BATCH, Predictor

AHEAD = 2
"""Batches that are being read while one is classified: with two, a slow file does not let the engine wait."""


@dataclass(frozen=True)
class Prediction:
    """What the classifier says about one file.

    `status` is "ok", or "error" with its `reason` and nothing else. `labels` holds the one label that the classifier's
    decision gives, or for multilabel all of them. `confidence` is the probability of the label, or of the least sure of
    them. `probabilities` are in class order, 0..1. `candidates` are the classes that the image may have, and it is
    `ambiguous` where that is not exactly one; `out_of_distribution` says that the image is unlike any that it was trained on.
    """

    path: Path
    status: str
    reason: str = ""
    labels: tuple[str, ...] = ()
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()
    candidates: tuple[str, ...] = ()
    ambiguous: bool = False
    out_of_distribution: bool = False

    @property
    def review(self) -> str:
        """Why a person should look at the image: unlike, or unsure with the candidates; empty where none needs to."""
        if self.out_of_distribution:
            return "out-of-distribution"
        return f"ambiguous: {'|'.join(self.candidates) or 'no class fits'}" if self.ambiguous else ""

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
            readable = [file for file, reason in zip(batch.files, batch.reasons, strict=True) if reason is None]
            decided = iter(decide(classifier, readable, predictor.answers(batch.pixels)) if readable else ())
            for file, reason in zip(batch.files, batch.reasons, strict=True):
                yield next(decided) if reason is None else Prediction(file, "error", reason)


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


def view_of(classifier: Classifier, data: bytes) -> np.ndarray:
    """The plain view (S, S, 3) uint8 of what a file holds; raises `UnreadableImage`."""
    spec = classifier.backbone.facts.pixels
    return spec.crop(decode(data, classifier.decode, spec).pixels)


def read_pixels(classifier: Classifier, file: Path) -> np.ndarray | str:
    """The plain view (S, S, 3) uint8 of a file, or the reason why there is none."""
    size = classifier.backbone.facts.pixels.size
    pixels = np.empty((size, size, 3), np.uint8)
    reason = _read(classifier, file, pixels)
    return pixels if reason is None else reason


def _finished(files: list[Path], pixels: np.ndarray, futures: list[Future[str | None]]) -> Batch:
    """A batch once its files are read, without the rows of those that cannot be."""
    reasons = tuple(future.result() for future in futures)
    readable = [reason is None for reason in reasons]
    return Batch(tuple(files), reasons, pixels[readable] if not all(readable) else pixels)


def _read(classifier: Classifier, file: Path, row: np.ndarray) -> str | None:
    """Put the plain view of a file into a row (S, S, 3), or give the reason why there is none."""
    try:
        row[...] = view_of(classifier, file.read_bytes())
    except UnreadableImage as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return None


def decide(classifier: Classifier, files: Sequence[Path], answers: ModelOutputs) -> list[Prediction]:
    """Predictions for N files from what the network said of them."""
    review_policy, classes = classifier.review_policy, classifier.classes
    chosen = classifier.decision.labels(answers.probabilities, classifier.task)
    likely = review_policy.candidates(answers.probabilities) if review_policy else np.zeros_like(chosen)
    nobody = np.zeros(len(files), bool)
    ambiguous = review_policy.is_ambiguous(answers.probabilities) if review_policy else nobody
    out_of_distribution = review_policy.is_out_of_distribution(answers.features) if review_policy else nobody
    rows = zip(files, answers.probabilities, chosen, likely, ambiguous, out_of_distribution, strict=True)
    found = []
    for file, row, given, may, is_ambiguous, is_out_of_distribution in rows:
        sure = np.where(given, row, 1.0 - row).min() if classifier.task == "multilabel" else row[given.argmax()]
        found.append(
            Prediction(
                path=file,
                status="ok",
                labels=tuple(classes[index] for index in np.flatnonzero(given)),
                confidence=float(sure),
                probabilities=tuple(row.tolist()),
                candidates=tuple(classes[index] for index in np.flatnonzero(may)),
                ambiguous=bool(is_ambiguous),
                out_of_distribution=bool(is_out_of_distribution),
            )
        )
    return found
