"""`thaw predict`: classify any number of images into a table that is written as predictions come.

Memory is that of a few batches. With an output file, a killed job loses one block of rows at most; running the same
command again resumes it and gives the same file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from thaw.classifier.classifier import Classifier
from thaw.csv_text import print_csv
from thaw.device import choose_device
from thaw.errors import DataError, RecipeError
from thaw.formats import count
from thaw.prediction.files_digest import FilesDigest
from thaw.prediction.inputs import LeftOut, files_at
from thaw.prediction.partial_file import PartialFile, ResumeKey, RowsDone, partial_of
from thaw.prediction.predict import Prediction, predict_files, read_files
from thaw.prediction.predictor import (
    BATCH,
    MIN_IMAGES_TO_PROBE,
    Predictor,
    PredictorChoice,
    choose_predictor,
    reference_predictor,
)
from thaw.prediction.table import Format, check_output, format_of
from thaw.progress import NullReporter, OnProgress, Reporter
from thaw.recipe import Engine
from thaw.remote import shown
from thaw.writing import check_closed

BLOCK = 512
"""Rows between two flushes to disk, which is what a kill loses at most: 12 seconds at 43 images per second. A multiple
of `BATCH`, so that batches contain the same images whether or not a job was interrupted."""

_NO_PIXELS = np.empty((0, 0, 0, 3), np.uint8)
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th file from the `index`-th on (from 1); all shards together are the whole job."""

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
class Block:
    """Rows of the table that are written together: their files, their bytes, and how many are error rows."""

    files: Sequence[Path]
    rows: bytes
    failed: int


Classify = Callable[[Iterator[Path], Engine], Iterator[Block]]
"""Classifies files with an engine, elsewhere: blocks of `BLOCK` rows, in order."""


@dataclass(frozen=True)
class PredictJob:
    """What to classify, how, and where to write the table.

    Attributes:
        inputs: Image files, or folders that are searched for them.
        out: A .csv or .parquet file; `None` for standard output.
        shard: The part of the files that this process classifies.
        engine: What runs the backbone.
        device: Where it runs.
        mirrored: Average each prediction with that of the mirror image.
        image_size: Side of the input in pixels; `None` for the size that the classifier was trained at.
    """

    inputs: tuple[Path, ...]
    out: Path | None = None
    shard: Shard = Shard()
    engine: Literal["auto"] | Engine = "auto"
    device: str = "auto"
    mirrored: bool = False
    image_size: int | None = None

    @property
    def variant(self) -> str:
        """Suffix that distinguishes predictions with test-time options; empty for plain ones."""
        return (" mirrored" if self.mirrored else "") + (f" at {self.image_size}" if self.image_size else "")

    def files(self, left_out: LeftOut | None = None) -> Iterator[Path]:
        """The files of the shard, always in the same order; raises `DataError` if an input has no images."""
        return self.shard.of(files_at(self.inputs, left_out))

    def resume_key(self, bundle: str, device: torch.device) -> ResumeKey:
        """What must not change between the interrupted and the resumed job."""
        shard = f"{self.shard.index}/{self.shard.count}"
        return ResumeKey(bundle + self.variant, tuple(map(shown, self.inputs)), shard, self.engine, str(device))


def write_predictions(
    classifier: Classifier,
    bundle: str,
    job: PredictJob,
    cache: Path,
    reporter: Reporter,
    elsewhere: Classify | None = None,
) -> tuple[int, int]:
    """Run a job; the output file appears when it is complete, and an interrupted job is resumed.

    Args:
        classifier: The classifier.
        bundle: Digest of its bundle; rows of different bundles are never mixed.
        job: What to classify, and where to write.
        cache: Folder that remembers which engine is fastest.
        reporter: Shows messages and progress.
        elsewhere: Classifies instead of this process, with the engine that is chosen here.

    Returns:
        How many images were classified, and how many could not be read.

    Raises:
        DataError: Images are missing, or the file belongs to another job.
        WriteError: The file cannot be written, has another suffix, or is there and is not a table of predictions.
    """
    if job.out:
        check_output(job.out)
        # Else all images would be classified before this is found.
        check_closed(job.out)
    device = choose_device(job.device).device
    left_out = LeftOut()
    total = sum(1 for _ in job.files(left_out))
    for sentence in left_out.sentences:
        reporter.say(sentence)
    with _output_of(job, bundle, device) as output:
        files, classified = job.files(), FilesDigest()
        _skip_done(files, classified, output.done, job)
        if output.done.rows:
            reporter.say(f"{job.out}: resuming after {output.done.rows:,} of {count(total, 'image')}")
        choice = _choose_predictor(classifier, job, device, output.done, total, cache)
        engine = choice.predictor.engine
        reporter.say(f"engine {engine} on {device}: {choice.reason}")
        table = format_of(job.out, classifier.classes)
        progress = _Progress(output.done.rows, total, _progress_bar(job, reporter))
        if elsewhere is None:
            blocks = _blocks(choice.predictor, files, table, job, progress)
        else:
            blocks = progress.of_blocks(elsewhere(files, engine))
        with closing(blocks):
            _append(blocks, table, output, classified, engine)
        if job.out:
            check_output(job.out)
        output.finish(table.finish)
        return output.done.rows - output.done.failed, output.done.failed


def block_of(rows: Sequence[Prediction], files: Sequence[Path], table: Format) -> Block:
    """The predictions for some files as a block of a table."""
    return Block(files, table.block(rows), sum(row.status == "error" for row in rows))


@dataclass(frozen=True)
class _Progress:
    """Reports how many of `total` files have rows, of which `done` were there before."""

    done: int
    total: int
    advance: OnProgress

    def of_predictions(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """The predictions unchanged; reports once per batch."""
        self.advance(self.done, self.total)
        for number, prediction in enumerate(predictions, self.done + 1):
            yield prediction
            if number % BATCH == 0 or number == self.total:
                self.advance(number, self.total)

    def of_blocks(self, blocks: Iterable[Block]) -> Generator[Block]:
        """The blocks unchanged; reports each."""
        done = self.done
        self.advance(done, self.total)
        for block in blocks:
            yield block
            done += len(block.files)
            self.advance(done, self.total)


class _StandardOutput:
    """The interface of `PartialFile` on standard output, where nothing is kept and nothing can be resumed."""

    def __init__(self) -> None:
        self.done = RowsDone()
        # A progress bar on the terminal replaces `sys.stdout` while it is shown.
        self._stream = sys.stdout

    def append(self, block: bytes, done: RowsDone) -> None:
        """Print a block."""
        print_csv(block, self._stream)
        self.done = done

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Do nothing: everything is printed."""


def _output_of(
    job: PredictJob, bundle: str, device: torch.device
) -> AbstractContextManager[PartialFile | _StandardOutput]:
    if job.out is None:
        return nullcontext(_StandardOutput())
    return PartialFile(job.out, job.resume_key(bundle, device))


def _progress_bar(job: PredictJob, reporter: Reporter) -> OnProgress:
    """A progress bar, unless it would be drawn between rows on the same terminal."""
    return NullReporter().bar("") if job.out is None and sys.stdout.isatty() else reporter.bar("predict")


def _append(
    blocks: Iterable[Block],
    table: Format,
    output: PartialFile | _StandardOutput,
    classified: FilesDigest,
    engine: Engine,
) -> None:
    """Write block after block, each with the record of what is done after it."""
    if output.done == RowsDone():
        output.append(table.head(), RowsDone(paths=classified.digest, engine=engine))
    for block in blocks:
        classified.add(block.files)
        rows, failed = output.done.rows + len(block.files), output.done.failed + block.failed
        output.append(block.rows, RowsDone(rows, failed, classified.digest, engine))


def _blocks(
    predictor: Predictor,
    files: Iterator[Path],
    table: Format,
    job: PredictJob,
    progress: _Progress,
) -> Generator[Block]:
    """Blocks of predictions that this process computes."""
    # Files are read ahead of those whose rows are written.
    read, written = tee(files)
    with closing(predict_files(predictor.classifier, read, BATCH, predictor)) as predictions:
        rows = progress.of_predictions(predictions)
        while block := list(islice(rows, BLOCK if job.out else BATCH)):
            yield block_of(block, list(islice(written, len(block))), table)


def _choose_predictor(
    classifier: Classifier, job: PredictJob, device: torch.device, done: RowsDone, total: int, cache: Path
) -> PredictorChoice:
    """The predictor of the remaining images; a resumed job keeps its engine, so that its rows stay consistent."""
    reference = reference_predictor(classifier, device, job.mirrored, job.image_size)
    if done.engine:
        return PredictorChoice(
            reference.with_engine(cast(Engine, done.engine)), "the engine that this file was begun with"
        )
    is_open = job.engine == "auto" and total >= MIN_IMAGES_TO_PROBE and not classifier.backbone.facts.int8
    needs_sample = is_open or job.engine not in ("auto", reference.engine)
    pixels = _first_readable(reference, job.files()) if needs_sample else _NO_PIXELS
    return choose_predictor(reference, job.engine, pixels, total, cache)


def _first_readable(predictor: Predictor, files: Iterable[Path]) -> np.ndarray:
    """Pixels (N, S, S, 3) uint8 of the first batch with a readable image; empty if there is none."""
    with closing(read_files(predictor.classifier, files, BATCH, predictor.pixel_spec)) as batches:
        return next((batch.pixels for batch in batches if len(batch.pixels)), _NO_PIXELS)


def _skip_done(files: Iterator[Path], classified: FilesDigest, done: RowsDone, job: PredictJob) -> None:
    """Skip the files that have rows; raises `DataError` if they are not the files of these rows."""
    classified.add(islice(files, done.rows))
    if done.rows and classified.digest != done.paths:
        raise DataError(
            f"{job.out}: images were added, removed, renamed or changed among the {done.rows:,} already classified; "
            f"undo that, or remove {partial_of(cast(Path, job.out))} to start again"
        )
