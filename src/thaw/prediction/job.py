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
from thaw.prediction.partial_file import PartialFile, ResumeKey, RowsDone, partial_of
from thaw.prediction.predict import Prediction, predict_files, read_files
from thaw.prediction.predictor import BATCH, PLAIN_BELOW, Predictor, PredictorChoice, at_image_size, choose_predictor
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
class PredictJob:
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
    classifier: Classifier, bundle: str, job: PredictJob, cache: Path, reporter: Reporter
) -> tuple[int, int]:
    """Classify what was asked for; gives how many images were classified and how many could not be read.

    The file appears when it is whole; one that was begun and cut short is gone on with. `bundle` tells bundles apart:
    rows of different ones are never mixed. Which engine is fastest is remembered in `cache`. Raises a `ThawError` in
    one sentence for what a person can mend.
    """
    device = choose_device(job.device).device
    total = sum(1 for _ in job.files())
    with at_image_size(classifier, job.size), _place(job, bundle + job.way, device) as place:
        files, digest_so_far = job.files(), PathDigest()
        _skip(files, digest_so_far, place.done, job)
        if place.done.rows:
            reporter.say(f"{job.out}: going on after {place.done.rows:,} of {total:,} images")
        chosen = _chosen(classifier, job, device, place.done, total, cache)
        chosen.predictor.mirrored = job.mirrored
        reporter.say(f"engine {chosen.predictor.engine} on {device}: {chosen.reason}")
        form = format_of(job.out, classifier.classes)
        with closing(predict_files(classifier, files, BATCH, chosen.predictor)) as predictions:
            blocks = _blocks(_shown(predictions, place.done.rows, total, _bar(job, reporter)), job)
            _append(blocks, form, place, digest_so_far, chosen.predictor.engine)
        place.finish(form.finish)
        return place.done.rows - place.done.failed, place.done.failed


class _StandardOutput:
    """Where rows go without a file: nothing is kept, so nothing can be gone on with."""

    def __init__(self) -> None:
        self.done = RowsDone()
        # A bar on the terminal takes the place of `sys.stdout` while it moves.
        self._stream = sys.stdout

    def append(self, block: bytes, done: RowsDone) -> None:
        """Print a block."""
        self._stream.write(block.decode("utf-8"))
        self._stream.flush()
        self.done = done

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Nothing is left to do."""


def _place(job: PredictJob, bundle: str, device: torch.device) -> AbstractContextManager[PartialFile | _StandardOutput]:
    if job.out is None:
        return nullcontext(_StandardOutput())
    shard = f"{job.shard.index}/{job.shard.count}"
    return PartialFile(job.out, ResumeKey(bundle, tuple(map(str, job.places)), shard, job.engine, str(device)))


def _bar(job: PredictJob, reporter: Reporter) -> OnProgress:
    """A bar, unless it would move through the rows themselves."""
    return NullReporter().bar("") if job.out is None and sys.stdout.isatty() else reporter.bar("predict")


def _append(
    blocks: Iterable[list[Prediction]],
    form: Format,
    place: PartialFile | _StandardOutput,
    digest_so_far: PathDigest,
    engine: Engine,
) -> None:
    """Write block after block, each with the record of what is done with it."""
    if place.done == RowsDone():
        place.append(form.head(), RowsDone(paths=digest_so_far.digest, engine=engine))
    for rows in blocks:
        digest_so_far.add(item.path for item in rows)
        failed = place.done.failed + sum(item.status == "error" for item in rows)
        place.append(form.block(rows), RowsDone(place.done.rows + len(rows), failed, digest_so_far.digest, engine))


def _blocks(predictions: Iterator[Prediction], job: PredictJob) -> Iterator[list[Prediction]]:
    return iter(lambda: list(islice(predictions, BLOCK if job.out else BATCH)), [])


def _shown(predictions: Iterable[Prediction], done: int, total: int, advance: OnProgress) -> Iterator[Prediction]:
    """Predictions as they are, moving a bar batch by batch."""
    advance(done, total)
    for number, prediction in enumerate(predictions, done + 1):
        yield prediction
        if number % BATCH == 0 or number == total:
            advance(number, total)


def _chosen(
    classifier: Classifier, job: PredictJob, device: torch.device, done: RowsDone, total: int, cache: Path
) -> PredictorChoice:
    """The predictor for what is left; a file that was begun keeps its engine, or its rows would not fit together."""
    if done.engine:
        return PredictorChoice(
            Predictor(classifier, cast(Engine, done.engine), device), "with which this file was begun"
        )
    needs_sample = job.engine != REFERENCE and (job.engine != "auto" or total >= PLAIN_BELOW)
    pixels = _first_readable(classifier, job.files()) if needs_sample else _NO_PIXELS
    return choose_predictor(classifier, job.engine, device, pixels, total, cache)


def _first_readable(classifier: Classifier, files: Iterable[Path]) -> np.ndarray:
    """Pixels (N, S, S, 3) uint8 of the first batch in which anything can be read; empty where nothing can."""
    with closing(read_files(classifier, files, BATCH)) as batches:
        return next((batch.pixels for batch in batches if len(batch.pixels)), _NO_PIXELS)


class PathDigest:
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


def _skip(files: Iterator[Path], digest_so_far: PathDigest, done: RowsDone, job: PredictJob) -> None:
    """Pass over the files that have their rows; raises `DataError` where they are not those of the rows."""
    digest_so_far.add(islice(files, done.rows))
    if done.rows and digest_so_far.digest != done.paths:
        raise DataError(
            f"{job.out}: images were added, removed or renamed among the {done.rows:,} that have their rows; "
            f"undo that, or remove {partial_of(cast(Path, job.out))} to begin anew"
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
