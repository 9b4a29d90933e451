"""Pictures of a page: read from the files of a run in one pass, each counted against what the page may weigh."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.errors import BackboneError
from thaw.evaluation.explain import class_maps, randomised_agreement
from thaw.evaluation.overlays import overlay
from thaw.html.thumbnails import embedded
from thaw.prediction.predict import read_files, read_pixels
from thaw.progress import OnProgress

_BATCH = 16
_LONGEST_NAME = 96
_NO_ROOM = "left out, so that this page stays small"


@dataclass(frozen=True)
class Picture:
    """One image with what is said of it; without a source, `reason` says why it cannot be shown.

    name: its path below the folder of all images; empty where it stands beside its image.
    """

    name: str
    source: str
    caption: str
    detail: str = ""
    reason: str = ""


class Album:
    """Thumbnails of image files.

    folder: what the names of all images begin with, which their captions leave out. budget: how many characters all
    pictures that are given out may take together.
    """

    def __init__(self, classifier: Classifier, root: Path, folder: str, budget: int) -> None:
        self._classifier, self._root, self._folder, self._left = classifier, root, folder, budget
        self._sources: dict[tuple[str, int], str] = {}
        self._reasons: dict[str, str] = {}

    def read(self, paths: Iterable[str], side: int, on_progress: OnProgress | None = None) -> None:
        """Read files, given relative to the root, and keep their thumbnails and nothing else of them."""
        wanted = [path for path in dict.fromkeys(paths) if (path, side) not in self._sources]
        names, done = iter(wanted), 0
        with closing(read_files(self._classifier, (self._root / path for path in wanted), _BATCH)) as batches:
            for batch in batches:
                pixels = iter(batch.pixels)
                for reason in batch.reasons:
                    self._keep(next(names), side, reason, next(pixels) if reason is None else None)
                done += len(batch.files)
                if on_progress:
                    on_progress(done, len(wanted))

    def picture(self, path: str, side: int, caption: str, detail: str = "") -> Picture:
        """A picture that has been read."""
        return self._spend(path, self._sources.get((path, side), ""), caption, detail, self._reasons.get(path, ""))

    def explained(
        self, paths: Sequence[str], class_indices: Sequence[int], side: int, captions: Sequence[str]
    ) -> list[Picture]:
        """Each image with what speaks for a class laid over it; a network without maps gives pictures without one."""
        read = [read_pixels(self._classifier, self._root / path) for path in paths]
        shown = [number for number, pixels in enumerate(read) if isinstance(pixels, np.ndarray)]
        sources, reasons = [""] * len(paths), [pixels if isinstance(pixels, str) else "" for pixels in read]
        if shown:
            pixels = np.stack([read[number] for number in shown])
            try:
                maps = class_maps(self._classifier, pixels, [class_indices[number] for number in shown])
            except BackboneError as error:
                for number in shown:
                    reasons[number] = str(error)
            else:
                for number, image, class_map in zip(shown, pixels, maps, strict=True):
                    sources[number] = embedded(overlay(image, class_map), side)
        rows = zip(sources, captions, reasons, strict=True)
        return [self._spend("", source, caption, "", reason) for source, caption, reason in rows]

    def agreement_with_random(self, paths: Sequence[str], class_indices: Sequence[int]) -> float | None:
        """How alike the maps of images are to those of a random network, -1..1; `None` where there are no maps."""
        read = [read_pixels(self._classifier, self._root / path) for path in paths]
        shown = [
            (pixels, index) for pixels, index in zip(read, class_indices, strict=True) if not isinstance(pixels, str)
        ]
        if not shown:
            return None
        try:
            return randomised_agreement(
                self._classifier, np.stack([pixels for pixels, _ in shown]), [index for _, index in shown]
            )
        except BackboneError:
            return None

    def _keep(self, path: str, side: int, reason: str | None, pixels: np.ndarray | None) -> None:
        if pixels is not None:
            self._sources[path, side] = embedded(pixels, side)
        else:
            self._reasons[path] = reason or ""

    def _spend(self, path: str, source: str, caption: str, detail: str, reason: str) -> Picture:
        if len(source) > self._left:
            source, reason = "", _NO_ROOM
        self._left -= len(source)
        return Picture(short(path.removeprefix(self._folder)), source, caption, detail, reason)


def folder_of(paths: Sequence[str]) -> str:
    """The folder that all paths begin with, up to and with its last slash; empty where they share none."""
    shared = os.path.commonprefix(paths)  # noqa: RUF071, for what follows the last slash is cut off
    return shared[: shared.rfind("/") + 1]


def short(path: str) -> str:
    """A path that is long, by its end."""
    return path if len(path) <= _LONGEST_NAME else f"…{path[-_LONGEST_NAME:]}"
