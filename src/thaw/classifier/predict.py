"""From image files to predictions: streaming, in order, one row per file whatever happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from thaw.data.decode import decode
from thaw.device import worker_count
from thaw.errors import UnreadableImage

if TYPE_CHECKING:
    from thaw.classifier.classifier import Classifier

THRESHOLD = 0.5


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


def predict_files(classifier: Classifier, files: Iterable[Path], batch_size: int = 32) -> Iterator[Prediction]:
    """Predictions for files, in order; memory does not grow with their number.

    One batch is read while the one before it is classified.
    """
    remaining = iter(files)
    with ThreadPoolExecutor(max_workers=worker_count()) as pool:
        current: list[tuple[Path, Future[np.ndarray | str]]] = []
        while True:
            following = [(file, pool.submit(_read, classifier, file)) for file in islice(remaining, batch_size)]
            yield from _classify(classifier, [(file, future.result()) for file, future in current])
            if not following:
                return
            current = following


def predict_pixels(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) float32 for pixels (N, S, S, 3) uint8, in fp32."""
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(pixels).to(classifier.device))
        return classifier.probabilities(logits).cpu().numpy()


def _read(classifier: Classifier, file: Path) -> np.ndarray | str:
    """The plain view of a file, or the reason why there is none."""
    spec = classifier.backbone.facts.pixels
    try:
        return spec.crop(decode(file.read_bytes(), classifier.decode, spec).pixels)
    except UnreadableImage as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _classify(classifier: Classifier, read: list[tuple[Path, np.ndarray | str]]) -> Iterator[Prediction]:
    pixels = [image for _, image in read if isinstance(image, np.ndarray)]
    probabilities = iter(predict_pixels(classifier, np.stack(pixels)) if pixels else ())
    for file, image in read:
        if isinstance(image, str):
            yield Prediction(file, "error", image)
        else:
            yield decide(classifier, file, next(probabilities))


def decide(classifier: Classifier, file: Path, row: np.ndarray) -> Prediction:
    """What probabilities (classes,) in 0..1 say about a file."""
    if classifier.task == "multilabel":
        labels = tuple(name for name, value in zip(classifier.classes, row, strict=True) if value >= THRESHOLD)
        confidence = float(np.maximum(row, 1.0 - row).min())
    else:
        labels = (classifier.classes[int(row.argmax())],)
        confidence = float(row.max())
    return Prediction(file, "ok", "", labels, confidence, tuple(float(value) for value in row))
