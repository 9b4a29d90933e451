"""From image files to predictions: streaming, in order, one per file, unreadable files included."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import confidences
from thaw.classifier.outputs import ModelOutputs
from thaw.cores import worker_count
from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.data.image_file import read_image_file
from thaw.errors import UnreadableImage
from thaw.prediction.inputs import printable
from thaw.prediction.predictor import BATCH, Predictor, reference_predictor

READ_AHEAD = 2
"""Batches that are read while one is classified: with two, a slow file does not make the engine wait."""


Content = bytes | np.ndarray | UnreadableImage
"""The bytes of a file, its plain view (S, S, 3) uint8, or why it cannot be read."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
        path: The file; bytes of its name that are not valid UTF-8 are escaped, such as \\xe9.
        status: "ok", or "error" with a reason and nothing else.
        reason: Why the file cannot be read.
        labels: The predicted class, or for multilabel all predicted labels.
        confidence: Probability of the label; for multilabel the lowest probability of a decision, for or against a
            label.
        probabilities: One per class, in class order, 0..1.
        candidates: The classes of the prediction set.
        ambiguous: Whether the prediction set is anything but the label.
        out_of_distribution: Whether the image is far from all training images; `None` if the classifier has no review
            policy.
    """

    path: Path
    status: str
    reason: str = ""
    labels: tuple[str, ...] = ()
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()
    candidates: tuple[str, ...] = ()
    ambiguous: bool = False
    out_of_distribution: bool | None = None

    @property
    def review(self) -> str:
        """Why the image is flagged for review; empty if it is not."""
        if self.out_of_distribution:
            return "out-of-distribution"
        return f"ambiguous: {'|'.join(self.candidates) or 'no class fits'}" if self.ambiguous else ""

    @property
    def label(self) -> str:
        """The labels as one text, joined by `|`."""
        return "|".join(self.labels)


def predict_files(
    classifier: Classifier,
    files: Iterable[Path],
    batch_size: int = BATCH,
    predictor: Predictor | None = None,
    read: Callable[[Path], Content] = read_image_file,
) -> Generator[Prediction]:
    """Predictions for files, in order.

    Memory does not grow with the number of files: a few batches are read ahead of the one that is classified.

    Args:
        classifier: The classifier.
        files: Image files.
        batch_size: Images per batch.
        predictor: What runs the classifier; by default the engine that defines its probabilities.
        read: Gives the content of a file; by default from the file.
    """
    predictor = predictor or reference_predictor(classifier)
    with closing(read_files(classifier, files, batch_size, predictor.pixel_spec, read)) as batches:
        for batch in batches:
            readable = [file for file, reason in zip(batch.files, batch.reasons, strict=True) if reason is None]
            outputs = predictor.outputs(batch.pixels) if readable else None
            predictions = iter(to_predictions(classifier, readable, outputs) if outputs else ())
            for file, reason in zip(batch.files, batch.reasons, strict=True):
                yield next(predictions) if reason is None else Prediction(Path(printable(file)), "error", reason)


def to_predictions(classifier: Classifier, files: Sequence[Path], outputs: ModelOutputs) -> list[Prediction]:
    """Predictions for N files from the network's outputs for them."""
    policy, classes, probabilities = classifier.review_policy, classifier.classes, outputs.probabilities
    predicted = classifier.decision.labels(probabilities, classifier.task)
    confidence = confidences(probabilities, predicted, classifier.task)
    candidates = policy.candidates(probabilities) if policy else np.zeros_like(predicted)
    ambiguous = policy.is_ambiguous(probabilities, predicted) if policy else np.zeros(len(files), bool)
    out_of_distribution = policy.is_out_of_distribution(outputs.features) if policy else None
    return [
        Prediction(
            path=file,
            status="ok",
            labels=tuple(classes[index] for index in np.flatnonzero(predicted[row])),
            confidence=float(confidence[row]),
            probabilities=tuple(probabilities[row].tolist()),
            candidates=tuple(classes[index] for index in np.flatnonzero(candidates[row])),
            ambiguous=bool(ambiguous[row]),
            out_of_distribution=None if out_of_distribution is None else bool(out_of_distribution[row]),
        )
        for row, file in enumerate(files)
    ]


@dataclass(frozen=True)
class Batch:
    """Files, why each cannot be read (or `None`), and pixels (N, S, S, 3) uint8 of the readable ones."""

    files: tuple[Path, ...]
    reasons: tuple[str | None, ...]
    pixels: np.ndarray


def read_files(
    classifier: Classifier,
    files: Iterable[Path],
    batch_size: int,
    spec: PixelSpec | None = None,
    read: Callable[[Path], Content] = read_image_file,
) -> Generator[Batch]:
    """Decode files in order, in batches, with one thread per core, up to `READ_AHEAD` batches ahead.

    Args:
        classifier: Defines how files are decoded.
        files: Image files.
        batch_size: Files per batch.
        spec: Size and crop of the pixels; by default the classifier's own.
        read: Gives the content of a file; by default from the file.
    """
    remaining, spec = iter(files), spec or classifier.backbone.facts.pixels
    pool = ThreadPoolExecutor(max_workers=worker_count())
    waiting: deque[tuple[list[Path], np.ndarray, list[Future[str | None]]]] = deque()
    try:
        while True:
            while len(waiting) <= READ_AHEAD and (following := list(islice(remaining, batch_size))):
                pixels = np.empty((len(following), spec.size, spec.size, 3), np.uint8)
                reasons = [
                    pool.submit(_read_into, row, classifier, file, spec, read)
                    for file, row in zip(following, pixels, strict=True)
                ]
                waiting.append((following, pixels, reasons))
            if not waiting:
                return
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def view_of(classifier: Classifier, data: bytes, spec: PixelSpec | None = None) -> np.ndarray:
    """The plain view (S, S, 3) uint8 of an encoded image, by default at the classifier's own size.

    Raises:
        UnreadableImage: The image cannot be decoded.
    """
    spec = spec or classifier.backbone.facts.pixels
    return spec.crop(decode(data, classifier.decode, spec).pixels)


def read_pixels(classifier: Classifier, file: Path, spec: PixelSpec | None = None) -> np.ndarray | str:
    """The plain view (S, S, 3) uint8 of a file, by default at the classifier's own size; or why it cannot be read."""
    spec = spec or classifier.backbone.facts.pixels
    pixels = np.empty((spec.size, spec.size, 3), np.uint8)
    reason = _read_into(pixels, classifier, file, spec)
    return pixels if reason is None else reason


def _finished(files: list[Path], pixels: np.ndarray, futures: list[Future[str | None]]) -> Batch:
    """Wait for the files of a batch, and drop the rows of unreadable ones."""
    reasons = tuple(future.result() for future in futures)
    readable = [reason is None for reason in reasons]
    return Batch(tuple(files), reasons, pixels[readable] if not all(readable) else pixels)


def _read_into(
    row: np.ndarray,
    classifier: Classifier,
    file: Path,
    spec: PixelSpec,
    read: Callable[[Path], Content] = read_image_file,
) -> str | None:
    """Write the plain view of a file into a row (S, S, 3); returns the reason if the file cannot be read."""
    if printable(file) != str(file):
        return "the file name is not valid UTF-8; rename it"
    try:
        content = read(file)
        if isinstance(content, UnreadableImage):
            raise content
        row[...] = view_of(classifier, content, spec) if isinstance(content, bytes) else content
    except UnreadableImage as error:
        return str(error)
    return None
