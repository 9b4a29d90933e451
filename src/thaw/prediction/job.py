"""A table of what a classifier says about every image it is shown, written as the predictions come.

However many images there are, memory stays that of a few batches. With a file to write, whoever kills the process and
runs the same again loses a block of rows at most, and gets the same file.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from thaw.classifier.classifier import Classifier
from thaw.data.layouts import images_under, utf8
from thaw.device import choose_device
from thaw.errors import DataError, RecipeError
from thaw.features.engines import REFERENCE
from thaw.prediction.partial_file import Done, Job, PartialFile, partial_of
from thaw.prediction.predict import Prediction, predict_files, read_files
from thaw.prediction.predictor import BATCH, PLAIN_BELOW, Chosen, Predictor, choose_predictor, looking_at
from thaw.prediction.table import Format, format_of
from thaw.progress import NullReporter, OnProgress, Reporter
from thaw.recipe import Engine

BLOCK = 512
"""Rows between two flushes to disk: what a kill costs at most, 12 seconds at 43 images a second. A multiple of `BATCH`,
so that batches hold the same images whether or not a run was cut short."""

_NO_PIXELS = np.empty((0, 0, 0, 3), np.uint8)
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th file by position, from the `index`-th on (from 1), so that all shards share a job."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/8"; raises `RecipeError`."""
        match = _SHARD.fullmatch(text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.index <= shard.count:
            raise RecipeError(f"--shard {text}: write it as I/N with I from 1 to N, such as 2/8 for the second of 8")
        return shard

    def of(self, files: Iterable[Path]) -> Iterator[Path]:
        """The files of this shard, in order."""
        return islice(files, self.index - 1, None, self.count)


@dataclass(frozen=True)
class Asked:
    """What to classify, on what, and where the table goes: a .csv or .parquet file, or standard output.

    `places` are image files, or folders that are searched for them. `mirrored` averages each image with its mirror
    image, and `size` looks at pictures of that side instead of the one that was trained at, in pixels.
    """

    places: tuple[Path, ...]
    out: Path | None = None
    shard: Shard = Shard()
    engine: Literal["auto"] | Engine = "auto"
    device: str = "auto"
    mirrored: bool = False
    size: int | None = None

    @property
    def way(self) -> str:
        """What tells these predictions from plain ones; empty for those."""
        return (" mirrored" if self.mirrored else "") + (f" at {self.size}" if self.size else "")

    def files(self) -> Iterator[Path]:
        """Found one after the other, always in the same order; raises `DataError` where there are none."""
        return self.shard.of(files_at(self.places))


def write_predictions(
    classifier: Classifier, bundle: str, asked: Asked, cache: Path, reporter: Reporter
) -> tuple[int, int]:
    """Classify what was asked for; gives how many images were classified and how many could not be read.

    The file appears when it is whole; one that was begun and cut short is gone on with. `bundle` tells bundles apart:
    rows of different ones are never mixed. Which engine is fastest is remembered in `cache`. Raises a `ThawError` in
    one sentence for what a person can mend.
    """
    device = choose_device(asked.device).device
    total = sum(1 for _ in asked.files())
    with looking_at(classifier, asked.size), _place(asked, bundle + asked.way, device) as place:
        files, trail = asked.files(), _Trail()
        _skip(files, trail, place.done, asked)
        if place.done.rows:
            reporter.say(f"{asked.out}: going on after {place.done.rows:,} of {total:,} images")
        chosen = _chosen(classifier, asked, device, place.done, total, cache)
        chosen.predictor.mirrored = asked.mirrored
        reporter.say(f"engine {chosen.predictor.engine} on {device}: {chosen.reason}")
        form = format_of(asked.out, classifier.classes)
        with closing(predict_files(classifier, files, BATCH, chosen.predictor)) as predictions:
            blocks = _blocks(_shown(predictions, place.done.rows, total, _bar(asked, reporter)), asked)
            _append(blocks, form, place, trail, chosen.predictor.engine)
        place.finish(form.finish)
        return place.done.rows - place.done.failed, place.done.failed


class _StandardOutput:
    """Where rows go without a file: nothing is kept, so nothing can be gone on with."""

    def __init__(self) -> None:
        self.done = Done()
        # A bar on the terminal takes the place of `sys.stdout` while it moves.
        self._stream = sys.stdout

    def append(self, block: bytes, done: Done) -> None:
        """Print a block."""
        self._stream.write(block.decode("utf-8"))
        self._stream.flush()
        self.done = done

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Nothing is left to do."""


def _place(asked: Asked, bundle: str, device: torch.device) -> AbstractContextManager[PartialFile | _StandardOutput]:
    if asked.out is None:
        return nullcontext(_StandardOutput())
    shard = f"{asked.shard.index}/{asked.shard.count}"
    return PartialFile(asked.out, Job(bundle, tuple(map(str, asked.places)), shard, asked.engine, str(device)))


def _bar(asked: Asked, reporter: Reporter) -> OnProgress:
    """A bar, unless it would move through the rows themselves."""
    return NullReporter().bar("") if asked.out is None and sys.stdout.isatty() else reporter.bar("predict")


def _append(
    blocks: Iterable[list[Prediction]],
    form: Format,
    place: PartialFile | _StandardOutput,
    trail: _Trail,
    engine: Engine,
) -> None:
    """Write block after block, each with the record of what is done with it."""
    if place.done == Done():
        place.append(form.head(), Done(paths=trail.digest, engine=engine))
    for rows in blocks:
        trail.add(item.path for item in rows)
        failed = place.done.failed + sum(item.status == "error" for item in rows)
        place.append(form.block(rows), Done(place.done.rows + len(rows), failed, trail.digest, engine))


def _blocks(predictions: Iterator[Prediction], asked: Asked) -> Iterator[list[Prediction]]:
    return iter(lambda: list(islice(predictions, BLOCK if asked.out else BATCH)), [])


def _shown(predictions: Iterable[Prediction], done: int, total: int, advance: OnProgress) -> Iterator[Prediction]:
    """Predictions as they are, moving a bar batch by batch."""
    advance(done, total)
    for number, prediction in enumerate(predictions, done + 1):
        yield prediction
        if number % BATCH == 0 or number == total:
            advance(number, total)


def _chosen(classifier: Classifier, asked: Asked, device: torch.device, done: Done, total: int, cache: Path) -> Chosen:
    """The predictor for what is left; a file that was begun keeps its engine, or its rows would not fit together."""
    if done.engine:
        return Chosen(Predictor(classifier, cast(Engine, done.engine), device), "with which this file was begun")
    needs_sample = asked.engine != REFERENCE and (asked.engine != "auto" or total >= PLAIN_BELOW)
    pixels = _first_readable(classifier, asked.files()) if needs_sample else _NO_PIXELS
    return choose_predictor(classifier, asked.engine, device, pixels, total, cache)


def _first_readable(classifier: Classifier, files: Iterable[Path]) -> np.ndarray:
    """Pixels (N, S, S, 3) uint8 of the first batch in which anything can be read; empty where nothing can."""
    with closing(read_files(classifier, files, BATCH)) as batches:
        return next((batch.pixels for batch in batches if len(batch.pixels)), _NO_PIXELS)


class _Trail:
    """A digest of paths, one after the other."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, paths: Iterable[Path]) -> None:
        """Take in more paths."""
        for path in paths:
            self._hash.update(f"{path}\0".encode())

    @property
    def digest(self) -> str:
        """Of all paths so far."""
        return self._hash.hexdigest()


def _skip(files: Iterator[Path], trail: _Trail, done: Done, asked: Asked) -> None:
    """Pass over the files that have their rows; raises `DataError` where they are not those of the rows."""
    trail.add(islice(files, done.rows))
    if done.rows and trail.digest != done.paths:
        raise DataError(
            f"{asked.out}: images were added, removed or renamed among the {done.rows:,} that have their rows; "
            f"undo that, or remove {partial_of(cast(Path, asked.out))} to begin anew"
        )


def files_at(places: Sequence[Path]) -> Iterator[Path]:
    """Image files, and those in folders, one after the other in a fixed order; raises `DataError` for none."""
    for place in places:
        utf8(str(place))
        if place.is_dir():
            found = images_under(place)
            first = next(found, None)
            if first is None:
                raise DataError(f"{place}: there is no image in this folder")
            yield first
            yield from found
        elif place.exists():
            yield place
        else:
            raise DataError(f"{place}: there is no such file or folder")
