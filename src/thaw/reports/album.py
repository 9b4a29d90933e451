"""Thumbnails of a report, read from the image files in one pass and limited by a budget for the whole page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.errors import BackboneError
from thaw.evaluation.explain import class_maps, randomised_agreement
from thaw.evaluation.overlays import overlay
from thaw.html.thumbnails import Thumbnail, data_url
from thaw.prediction.predict import read_files, read_pixels
from thaw.progress import OnProgress

_BATCH = 16
_MAX_NAME = 96
_OVER_BUDGET = "left out to keep this page small"


class Album:
    """Thumbnails of image files, preprocessed as the classifier sees them.

    Args:
        classifier: Classifier whose preprocessing and class activation maps are shown.
        root: Folder that paths are relative to.
        folder: Common beginning of all paths, left out of the names shown.
        budget: Characters that all thumbnails together may take.
    """

    def __init__(self, classifier: Classifier, root: Path, folder: str, budget: int) -> None:
        self._classifier, self._root, self._folder, self._remaining = classifier, root, folder, budget
        self._data_urls: dict[tuple[str, int], str] = {}
        self._reasons: dict[str, str] = {}

    def read(self, paths: Iterable[str], side: int, on_progress: OnProgress | None = None) -> None:
        """Read files and keep their thumbnails of `side` pixels, or the reason why one cannot be read."""
        wanted = [path for path in dict.fromkeys(paths) if (path, side) not in self._data_urls]
        remaining, done = iter(wanted), 0
        with closing(read_files(self._classifier, (self._root / path for path in wanted), _BATCH)) as batches:
            for batch in batches:
                pixels = iter(batch.pixels)
                for reason, path in zip(batch.reasons, remaining, strict=False):
                    if reason is None:
                        self._data_urls[path, side] = data_url(next(pixels), side)
                    else:
                        self._reasons[path] = reason
                done += len(batch.files)
                if on_progress:
                    on_progress(done, len(wanted))

    def thumbnail(self, path: str, side: int, caption: str, detail: str = "") -> Thumbnail:
        """The thumbnail of a file that was read."""
        name = _short(path.removeprefix(self._folder))
        url, reason = self._data_urls.get((path, side), ""), self._reasons.get(path, "")
        return self._within_budget(Thumbnail(name, url, caption, detail, reason))

    def evidence(
        self, paths: Sequence[str], class_indices: Sequence[int], side: int, captions: Sequence[str]
    ) -> list[Thumbnail]:
        """Each image overlaid with the class activation map of its class; without maps, thumbnails with a reason."""
        images = [read_pixels(self._classifier, self._root / path) for path in paths]
        reasons = [image if isinstance(image, str) else "" for image in images]
        urls = [""] * len(paths)
        readable = {number: image for number, image in enumerate(images) if not isinstance(image, str)}
        if readable:
            try:
                indices = [class_indices[number] for number in readable]
                maps = class_maps(self._classifier, np.stack(list(readable.values())), indices)
                for (number, image), class_map in zip(readable.items(), maps, strict=True):
                    urls[number] = data_url(overlay(image, class_map), side)
            except BackboneError as error:
                for number in readable:
                    reasons[number] = str(error)
        return [
            self._within_budget(Thumbnail("", url, caption, "", reason))
            for url, caption, reason in zip(urls, captions, reasons, strict=True)
        ]

    def agreement_with_random(self, paths: Sequence[str], class_indices: Sequence[int]) -> float | None:
        """Rank correlation, -1..1, of the class activation maps with those of random weights; `None` without maps."""
        images = [read_pixels(self._classifier, self._root / path) for path in paths]
        readable = [
            (image, index) for image, index in zip(images, class_indices, strict=True) if not isinstance(image, str)
        ]
        if not readable:
            return None
        pixels, indices = np.stack([image for image, _ in readable]), [index for _, index in readable]
        try:
            return randomised_agreement(self._classifier, pixels, indices)
        except BackboneError:
            return None

    def _within_budget(self, thumbnail: Thumbnail) -> Thumbnail:
        if len(thumbnail.data_url) > self._remaining:
            return Thumbnail(thumbnail.name, "", thumbnail.caption, thumbnail.detail, _OVER_BUDGET)
        self._remaining -= len(thumbnail.data_url)
        return thumbnail


def common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths begin with, up to and with its last slash; empty without one."""
    prefix = os.path.commonprefix(paths)  # noqa: RUF071, for what follows the last slash is cut off
    return prefix[: prefix.rfind("/") + 1]


def _short(path: str) -> str:
    """The end of a long path."""
    return path if len(path) <= _MAX_NAME else f"…{path[-_MAX_NAME:]}"
