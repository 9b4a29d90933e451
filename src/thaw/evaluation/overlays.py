"""Pictures that show why: what speaks for a class glows on the image, which stays visible in grey."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import cv2
import numpy as np

from thaw import atomic
from thaw.classifier.classifier import Classifier
from thaw.device import worker_count
from thaw.errors import DataError
from thaw.evaluation.explain import class_maps
from thaw.features.engines import REFERENCE
from thaw.prediction.predict import read_pixels
from thaw.prediction.predictor import Predictor

_BATCH = 32
_STRONGEST = 0.75
"""How much of the colour the strongest place takes, 0..1; the rest is the picture."""
_DARKEST = 0.3
"""Where on inferno's scale colours begin: below it is black, which would look like a stain."""


@dataclass(frozen=True)
class Overlay:
    """What became of one file.

    `status` is "ok", or "error" with its `reason` and nothing else. `label` is the class that `picture` shows the
    reasons for, and `probability` (0..1) what the classifier gives it.
    """

    path: Path
    status: str
    reason: str = ""
    label: str = ""
    probability: float = float("nan")
    picture: Path | None = None


def overlay(pixels: np.ndarray, class_map: np.ndarray) -> np.ndarray:
    """An image (S, S, 3) uint8 RGB in grey, with a map (h, w) 0..1 laid over it in colour: (S, S, 3) uint8 RGB.

    The colours are those of inferno, from purple over orange to yellow: their steps look equal, and they grow lighter,
    so that people who do not tell red from green see them as well. Where the map is 0 the picture is as it is; its fine
    lines, light and dark, go on through the colour.
    """
    side = pixels.shape[0]
    strength = cv2.resize(np.asarray(class_map, np.float32), (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    step = np.rint(255 * (_DARKEST + (1 - _DARKEST) * strength)).astype(np.uint8)
    colour = cv2.applyColorMap(step, cv2.COLORMAP_INFERNO)[:, :, ::-1]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    around = cv2.GaussianBlur(grey, (0, 0), side / 20).clip(1, None)
    coloured = (colour * (grey / around)[:, :, None]).clip(0, 255)
    fraction = _STRONGEST * strength[:, :, None]
    return np.rint((1 - fraction) * grey[:, :, None] + fraction * coloured).astype(np.uint8)


def as_png(picture: np.ndarray) -> bytes:
    """An image (S, S, 3) uint8 RGB as the bytes of a PNG file."""
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


def write_overlays(
    classifier: Classifier, files: Sequence[Path], folder: Path, class_name: str | None = None
) -> Iterator[Overlay]:
    """Write a PNG for each image file below `folder`, and say what became of each, in order and as they come.

    A picture is named as its file and lies as deep below `folder` as the file below what all files share. It shows the
    class `class_name`, or the most probable one. Nothing is overwritten: where there is something already, and for a
    file that cannot be read, the row is an error. Memory does not grow with the number of files. Raises `DataError` for
    a class that the classifier does not know, and `BackboneError` for a network that has no maps.
    """
    class_index = None if class_name is None else _index_of(classifier, class_name)
    return _written(classifier, list(zip(files, _places(files, folder), strict=True)), class_index)


def _written(classifier: Classifier, jobs: Sequence[tuple[Path, Path]], class_index: int | None) -> Iterator[Overlay]:
    with ThreadPoolExecutor(max_workers=worker_count()) as pool:
        for start in range(0, len(jobs), _BATCH):
            some = jobs[start : start + _BATCH]
            read = list(pool.map(lambda job: read_pixels(classifier, job[0]), some))
            pixels = [image for image in read if isinstance(image, np.ndarray)]
            shown = iter(_explained(classifier, np.stack(pixels), class_index) if pixels else ())
            for (file, place), image in zip(some, read, strict=True):
                if isinstance(image, str):
                    yield Overlay(file, "error", image)
                else:
                    yield _write(file, place, *next(shown))


def _explained(
    classifier: Classifier, pixels: np.ndarray, class_index: int | None
) -> Iterator[tuple[np.ndarray, str, float]]:
    """For each image (N, S, S, 3) its overlay, the name of the class that it shows, and that class's probability."""
    probabilities = Predictor(classifier, REFERENCE, classifier.device).probabilities(pixels)
    indices = classifier.decision.foremost(probabilities, classifier.task)
    if class_index is not None:
        indices = np.full(len(pixels), class_index)
    maps = class_maps(classifier, pixels, indices)
    for image, class_map, index, row in zip(pixels, maps, indices, probabilities, strict=True):
        yield overlay(image, class_map), classifier.classes[index], float(row[index])


def _write(file: Path, place: Path, picture: np.ndarray, label: str, probability: float) -> Overlay:
    if place.exists():
        return Overlay(file, "error", f"{place} is there already; name another folder")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(place, as_png(picture))
    except OSError as error:
        return Overlay(file, "error", f"{place} cannot be written: {error.strerror}")
    return Overlay(file, "ok", "", label, probability, place)


def _places(files: Sequence[Path], folder: Path) -> list[Path]:
    """Where the picture of each file goes; files that differ in their suffix alone keep it."""
    if not files:
        return []
    shared = os.path.commonpath([file.absolute().parent for file in files])
    inside = [file.absolute().relative_to(shared) for file in files]
    times = Counter(path.with_suffix("") for path in inside)
    return [
        folder / (path.with_suffix(".png") if times[path.with_suffix("")] == 1 else f"{path}.png") for path in inside
    ]


def _index_of(classifier: Classifier, name: str) -> int:
    if name in classifier.classes:
        return classifier.classes.index(name)
    near = get_close_matches(name, classifier.classes, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise DataError(f"class {name!r}: the classifier does not know it; {hint}known are {', '.join(classifier.classes)}")
