"""Overlays: the evidence for a class in colour on the grey image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

import cv2
import numpy as np

from thaw import atomic
from thaw.classifier.classifier import Classifier
from thaw.cores import worker_count
from thaw.errors import DataError
from thaw.evaluation.explain import class_maps
from thaw.formats import MANY, listed
from thaw.marker import mark_if_new
from thaw.prediction.predict import read_pixels
from thaw.prediction.predictor import reference_predictor
from thaw.writing import check_writable, explained

_BATCH = 32
_MAX_OPACITY = 0.75
"""Opacity 0..1 of the colour at the maximum of the map."""
_MIN_COLOUR = 0.3
"""Lowest value 0..1 on the inferno scale that is used: below it is black, which would look like a stain."""


@dataclass(frozen=True)
class Overlay:
    """The result for one image file.

    Attributes:
        path: The image file.
        status: "ok", or "error" with a `reason` and nothing else.
        reason: Why there is no overlay.
        label: The class that the overlay explains.
        probability: Probability 0..1 of this class.
        output: The PNG file that was written.
    """

    path: Path
    status: str
    reason: str = ""
    label: str = ""
    probability: float = float("nan")
    output: Path | None = None


def overlay(pixels: np.ndarray, class_map: np.ndarray) -> np.ndarray:
    """The grey image with the map over it in colour, (S, S, 3) uint8 RGB.

    The colours are inferno, from purple over orange to yellow: perceptually uniform and of rising lightness, so that
    they can be read with colour-vision deficiency. Where the map is 0 the image is unchanged, and its fine detail stays
    visible through the colour.

    Args:
        pixels: (S, S, 3) uint8 RGB.
        class_map: (h, w) 0..1.
    """
    side = pixels.shape[0]
    strength = cv2.resize(np.asarray(class_map, np.float32), (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    level = np.rint(255 * (_MIN_COLOUR + (1 - _MIN_COLOUR) * strength)).astype(np.uint8)
    colour = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[:, :, ::-1]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    local_mean = cv2.GaussianBlur(grey, (0, 0), side / 20).clip(1, None)
    coloured = (colour * (grey / local_mean)[:, :, None]).clip(0, 255)
    opacity = _MAX_OPACITY * strength[:, :, None]
    return np.rint((1 - opacity) * grey[:, :, None] + opacity * coloured).astype(np.uint8)


def as_png(image: np.ndarray) -> bytes:
    """An image (S, S, 3) uint8 RGB as the bytes of a PNG file."""
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def write_overlays(
    classifier: Classifier, files: Sequence[Path], folder: Path, class_name: str | None = None
) -> Iterator[Overlay]:
    """Write one PNG per image file, and yield the results in the order of the files, in constant memory.

    A file that is given more than once is explained once. Nothing is overwritten: an output that exists, like an image
    that cannot be read, is an error row.

    Args:
        classifier: A network with spatial maps.
        files: Image files.
        folder: Where overlays go, with the name of their file and its subfolder below the common parent of all files.
        class_name: The class to explain; `None` for the most likely class of each image.

    Raises:
        DataError: If the classifier does not know the class.
        BackboneError: If the network has no maps.
        WriteError: If the folder cannot be written, or the disk is full.
    """
    check_writable(folder)
    class_index = None if class_name is None else _index_of(classifier, class_name)
    distinct = list({_absolute(file): file for file in files}.values())
    return _write_all(classifier, list(zip(distinct, _outputs(distinct, folder), strict=True)), class_index, folder)


def _write_all(
    classifier: Classifier, jobs: Sequence[tuple[Path, Path]], class_index: int | None, folder: Path
) -> Iterator[Overlay]:
    with ThreadPoolExecutor(max_workers=worker_count()) as pool:
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            images = list(pool.map(lambda job: read_pixels(classifier, job[0]), batch))
            pixels = [image for image in images if isinstance(image, np.ndarray)]
            overlays = iter(_explain(classifier, np.stack(pixels), class_index) if pixels else ())
            for (file, output), image in zip(batch, images, strict=True):
                if isinstance(image, str):
                    yield Overlay(file, "error", image)
                else:
                    explained = next(overlays)
                    # Where nothing can be written, each image gets an error row.
                    with suppress(OSError):
                        mark_if_new(folder)
                    yield _write(file, output, *explained)


def _explain(
    classifier: Classifier, pixels: np.ndarray, class_index: int | None
) -> Iterator[tuple[np.ndarray, str, float]]:
    """For each image (N, S, S, 3), its overlay, the class that it explains, and the probability of that class."""
    probabilities = reference_predictor(classifier).probabilities(pixels)
    indices = classifier.decision.top_labels(probabilities, classifier.task)
    if class_index is not None:
        indices = np.full(len(pixels), class_index)
    maps = class_maps(classifier, pixels, indices)
    for image, class_map, index, row in zip(pixels, maps, indices, probabilities, strict=True):
        yield overlay(image, class_map), classifier.classes[index], float(row[index])


def _write(file: Path, output: Path, image: np.ndarray, label: str, probability: float) -> Overlay:
    if os.path.lexists(output):
        return Overlay(file, "error", f"{output} already exists; choose another folder")
    with explained(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(output, as_png(image))
    return Overlay(file, "ok", "", label, probability, output)


def _outputs(files: Sequence[Path], folder: Path) -> list[Path]:
    """The output of each file; files that differ only in their suffix keep it."""
    if not files:
        return []
    paths = without_common_parent([_absolute(file) for file in files])
    times = Counter(path.with_suffix("") for path in paths)
    is_unique = [times[path.with_suffix("")] == 1 for path in paths]
    return [
        folder / (path.with_suffix(".png") if unique else f"{path}.png")
        for path, unique in zip(paths, is_unique, strict=True)
    ]


def without_common_parent(files: Sequence[PurePath]) -> list[PurePath]:
    """The paths below the folder that has all files; those on several drives of Windows below a folder for each."""
    if len({file.drive.casefold() for file in files}) > 1:
        drives = [re.sub(r"[^\w.$-]+", "_", file.drive).strip("_") for file in files]
        return [drive / file.relative_to(file.anchor) for drive, file in zip(drives, files, strict=True)]
    parent = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(parent) for file in files]


def _absolute(file: Path) -> Path:
    """The absolute path without `..`, which would lead out of the folder of the outputs."""
    return Path(os.path.normpath(file.absolute()))


def _index_of(classifier: Classifier, name: str) -> int:
    if name in classifier.classes:
        return classifier.classes.index(name)
    close = get_close_matches(name, classifier.classes, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    classes = listed(classifier.classes, MANY)
    raise DataError(f"class {name!r}: the classifier does not know it; {hint}the classes are {classes}")
