"""`thaw predict --cluster`: blocks of rows classified on the nodes of a cluster, and written here in order."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch

from thaw.bundle import digest_of, read_bundle
from thaw.cluster import Cluster, Device
from thaw.device import choose_device
from thaw.errors import ClusterError
from thaw.prediction.inputs import printable
from thaw.prediction.job import BLOCK, Block, PredictJob, block_of
from thaw.prediction.predict import predict_files
from thaw.prediction.predictor import BATCH, Predictor
from thaw.prediction.table import format_of
from thaw.recipe import Engine
from thaw.remote import shown


@dataclass(frozen=True)
class ClusterClassify:
    """Classifies the files of a job on a cluster, whose nodes see the bundle and the files under the same paths."""

    cluster: Cluster
    bundle: Path
    job: PredictJob

    @property
    def paths(self) -> list[Path]:
        """What every node must see: the bundle, and the folders of the files."""
        places = {place if place.is_dir() else place.parent for place in (path.absolute() for path in self.job.inputs)}
        return [self.bundle.absolute(), *sorted(places)]

    def __call__(self, files: Iterator[Path], engine: Engine) -> Generator[Block]:
        """Blocks of `BLOCK` rows, in the order of the files."""
        job, paths = self.job, self.paths
        kind = choose_device(job.device).device.type
        device = Device(self.cluster.threads, int(kind != "cpu"))
        bundle, digest, out = str(paths[0]), digest_of(self.bundle), str(job.out or "")
        how = (bundle, digest, engine, kind, job.mirrored, job.image_size)
        given: list[list[Path]] = []

        def pieces() -> Iterator[tuple[object, ...]]:
            while block := list(islice(files, BLOCK)):
                given.append(block)
                # Nodes may have another cache folder, and do not know what is a mirror.
                names = [shown(printable(file)) for file in block]
                yield how, out, [str(file) for file in block], names, str(Path.cwd())

        for rows, failed in self.cluster.starmap(rows_of_block, pieces(), device, paths):
            yield Block(given.pop(0), rows, failed)


def rows_of_block(
    how: tuple[str, str, Engine, str, bool, int | None],
    out: str,
    files: Sequence[str],
    names: Sequence[str],
    folder: str,
) -> tuple[bytes, int]:
    """Run on a node: rows of the table for some files, and how many of them are error rows.

    Args:
        how: What `_predictor` takes.
        out: The file that is written, whose suffix tells the format.
        files: The files as they were given.
        names: What the table calls them.
        folder: What relative paths are relative to.
    """
    predictor = _predictor(*how)
    read = [Path(folder) / file for file in files]
    found = predict_files(predictor.classifier, read, BATCH, predictor)
    rows = [replace(row, path=Path(name)) for row, name in zip(found, names, strict=True)]
    table = format_of(Path(out) if out else None, predictor.classifier.classes)
    block = block_of(rows, read, table)
    return block.rows, block.failed


@lru_cache(maxsize=1)
def _predictor(
    bundle: str, digest: str, engine: Engine, device: str, mirrored: bool, image_size: int | None
) -> Predictor:
    """The predictor of a bundle, kept for the next block; raises `ClusterError` for a bundle with another digest."""
    folder = Path(bundle)
    if digest_of(folder) != digest:
        raise ClusterError(f"{bundle}: is not the bundle that the command uses; keep it on storage that all nodes see")
    return Predictor(read_bundle(folder), engine, torch.device(device), mirrored, image_size)
