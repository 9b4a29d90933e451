"""`thaw predict --cluster`: blocks of rows classified on the nodes of a cluster, and written here in order.

Nodes read images by their paths. Where one does not see the first image of each folder, all blocks are sent with the
contents of their images; else only a block whose node turns out not to see all of them. The bundle is always sent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from thaw.bundle import certified_bundle, digest_of, files_of
from thaw.classifier.classifier import Classifier
from thaw.cluster import Cluster, Device, Shipment, Work, sizes_of, unseen_on_node
from thaw.data.image_file import read_image_file
from thaw.device import choose_device
from thaw.prediction.contents import pack, unpack
from thaw.prediction.inputs import files_at, printable
from thaw.prediction.job import BLOCK, Block, PredictJob, block_of
from thaw.prediction.predict import Content, predict_files
from thaw.prediction.predictor import BATCH, Predictor, spec_for
from thaw.prediction.table import format_of
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Engine
from thaw.remote import shown

_How = tuple[str, Engine, str, bool, int | None, str]
"""Digest of the bundle, engine, kind of device, whether mirrored, size of the input, and the file that is written."""

_Bundle = Mapping[str, np.ndarray]
"""The bytes of each file of a bundle by its name."""

_Names = Sequence[tuple[str, str]]
"""Of each file its path, and what the table calls it."""

_Rows = tuple[bytes, int]
"""Rows of the table, and how many of them are error rows."""


@dataclass(frozen=True)
class ClusterClassify:
    """Classifies the files of a job on a cluster with the classifier of a bundle."""

    cluster: Cluster
    bundle: Path
    classifier: Classifier
    job: PredictJob
    reporter: Reporter = field(default_factory=NullReporter)

    def __call__(self, files: Iterator[Path], engine: Engine) -> Generator[Block]:
        """Blocks of `BLOCK` rows, in the order of the files."""
        cluster, job, kind = self.cluster, self.job, choose_device(self.job.device).device.type
        how = (digest_of(self.bundle), engine, kind, job.mirrored, job.image_size, str(job.out or ""))
        bundle = cluster.put({name: np.fromfile(self.bundle / name, np.uint8) for name in files_of(self.bundle)})
        device = Device(cluster.threads, int(kind != "cpu"))

        def with_paths(block: list[Path]) -> tuple[object, ...]:
            return bundle, how, _names(block), sizes_of(block)

        def with_contents(block: list[Path]) -> tuple[object, ...]:
            packed = pack(block, self.classifier.decode, spec_for(self.classifier, job.image_size))
            return bundle, how, _names(block), *packed

        blocks = iter(lambda: list(islice(files, BLOCK)), [])
        samples = sizes_of(self._samples())
        work = Work(samples, rows_of_files, with_paths, rows_of_contents, with_contents)
        with Shipment(self.reporter) as shipment, closing(shipment.results(cluster, work, blocks, device)) as results:
            for block, rows in results:
                yield Block(block, *rows)

    def _samples(self) -> list[Path]:
        """The first image of each folder."""
        firsts: dict[Path, Path] = {}
        for place in self.job.inputs:
            folder = place if place.is_dir() else place.parent
            if folder not in firsts:
                firsts[folder] = next(files_at([place]))
        return list(firsts.values())


def _names(block: Sequence[Path]) -> _Names:
    """The absolute paths of files, and their names in the table: nodes have other folders, and know no mirrors."""
    return [(str(file.absolute()), shown(printable(file))) for file in block]


def rows_of_files(bundle: _Bundle, how: _How, names: _Names, sizes: Mapping[str, int]) -> _Rows | str:
    """Run on a node: rows of the table for some files, or a sentence on one that this node does not see."""
    return unseen_on_node(sizes) or _rows(bundle, how, names, read_image_file)


def rows_of_contents(
    bundle: _Bundle, how: _How, names: _Names, data: np.ndarray, parts: Sequence[tuple[str, int]]
) -> _Rows:
    """Run on a node: rows of the table for files whose contents were packed."""
    size = _predictor(bundle, how).pixel_spec.size
    files = (Path(file) for file, _ in names)
    contents = dict(zip(files, unpack(data, parts, size), strict=True))
    return _rows(bundle, how, names, contents.__getitem__)


def _rows(bundle: _Bundle, how: _How, names: _Names, read: Callable[[Path], Content]) -> _Rows:
    predictor, out = _predictor(bundle, how), how[-1]
    files = [Path(file) for file, _ in names]
    found = predict_files(predictor.classifier, files, BATCH, predictor, read)
    rows = [replace(row, path=Path(name)) for row, (_, name) in zip(found, names, strict=True)]
    table = format_of(Path(out) if out else None, predictor.classifier.classes)
    block = block_of(rows, files, table)
    return block.rows, block.failed


_last: dict[_How, Predictor] = {}
"""The predictor that this process used last."""


def _predictor(bundle: _Bundle, how: _How) -> Predictor:
    """The predictor of a bundle, kept for the next block."""
    if how not in _last:
        _, engine, device, mirrored, image_size, _ = how
        with TemporaryDirectory(prefix="thaw-bundle-") as folder:
            for name, content in bundle.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.tobytes())
            classifier = certified_bundle(Path(folder))
        _last.clear()
        _last[how] = Predictor(classifier, engine, torch.device(device), mirrored, image_size)
    return _last[how]
