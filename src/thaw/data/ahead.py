"""Images are decoded by a process of its own while PyTorch is imported, which takes seconds and one core.

It fills the cache of decoded images as the run itself would, without PyTorch. What the network wants of images is known
only after the import. Until then it is taken to be what the last run with the same backbone, weights and preprocessing
wanted, or else what most networks want. If that is wrong, the process is ended; if it fails or is killed, the run
decodes what is missing and meets the same errors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen

import pyarrow as pa

from thaw.cache import recall, remember
from thaw.cores import worker_count
from thaw.data.child_process import start_process
from thaw.data.decoding import Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.errors import ThawError
from thaw.progress import Bar, OnProgress
from thaw.recipe import DecodeSettings, Recipe
from thaw.recipe.network_files import with_absolute_files

FEWEST = 100
"""Images from which a process pays: it takes 0.5 s to start, and decodes a few hundred images per second."""

_FILE = "geometry.json"
_USUAL = PixelSpec(size=224, crop_pct=0.875, crop_mode="center", interpolation="bicubic", fill=(124, 116, 104))
_STARTER = PixelSpec(size=224, crop_pct=0.875, crop_mode="center", interpolation="bicubic", fill=(128, 128, 128))
"""What most networks want, and what the bundled one does."""

_REPORT_EVERY = 0.2
"""Seconds between two lines of progress; those of minutes fit into a pipe that nobody reads yet."""

_STDOUT = 1


@dataclass(frozen=True)
class DecodingAhead:
    """A process that decodes images with a geometry and settings, and writes its progress into a pipe.

    When nobody can read the pipe any more, however that came about, the process ends and removes what it has begun.
    """

    process: Popen[bytes]
    spec: PixelSpec
    settings: DecodeSettings

    def finish(self, spec: PixelSpec, settings: DecodeSettings, bar: Bar) -> None:
        """Wait until all is decoded, and show the progress; end the process where this is not what it decodes."""
        stream = self.process.stdout
        if stream is None or stream.closed:
            return
        with self.process:
            if (spec, settings) != (self.spec, self.settings):
                return
            for line in stream:
                done, total, title = line.decode().rstrip().split(maxsplit=2)
                bar(title)(int(done), int(total))


def decode_ahead(manifest: Manifest, recipe: Recipe, cache: Path) -> DecodingAhead | None:
    """Start to decode what a run will most likely need; `None` where that is there already, or would not pay."""
    spec = _expected(recipe, cache)
    if len(manifest) < FEWEST or worker_count() == 1 or PixelStore.exists(manifest, spec, recipe.decode, cache):
        return None
    work = {
        "root": str(manifest.root),
        "paths": manifest.column("path"),
        "spec": asdict(spec),
        "settings": recipe.decode.model_dump(),
        "cache": str(cache.absolute()),
    }
    process = start_process(__name__, work)
    return DecodingAhead(process, spec, recipe.decode) if process else None


def remember_geometry(recipe: Recipe, spec: PixelSpec, cache: Path) -> None:
    """Remember what a network wants for the next run with the same settings."""
    if _expected(recipe, cache) != spec:
        remember(cache, _FILE, _key(recipe), asdict(spec))


def _expected(recipe: Recipe, cache: Path) -> PixelSpec:
    with suppress(TypeError, KeyError):
        if remembered := recall(cache, _FILE, _key(recipe)):
            return PixelSpec.from_json(remembered)
    usual, given = _STARTER if recipe.backbone == "starter" else _USUAL, recipe.preprocessing
    return PixelSpec(
        size=given.image_size or usual.size,
        crop_pct=given.crop_pct or usual.crop_pct,
        crop_mode=given.crop_mode or usual.crop_mode,
        interpolation=given.interpolation or usual.interpolation,
        fill=usual.fill,
    )


def _key(recipe: Recipe) -> str:
    found = with_absolute_files(recipe)
    return f"{found.backbone} {found.weights} {found.preprocessing.model_dump_json()}"


def _reporting(title: str) -> OnProgress:
    """A bar of the process: lines on standard output, whose end is the end of the process."""
    last = 0.0

    def on_progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_EVERY:
            last = time.monotonic()
            os.write(_STDOUT, f"{done} {total} {title}\n".encode())

    return on_progress


def _decode() -> None:
    """What the process does with the request on its standard input."""
    work = json.load(sys.stdin)
    settings = DecodeSettings(**work["settings"])
    # Labels do not matter for pixels.
    manifest = Manifest(pa.table({"path": work["paths"]}), (), "multiclass", Path(work["root"]))
    # Whoever needs the images meets the same errors, and says so.
    with suppress(ThawError, OSError, KeyboardInterrupt):
        decoding = Decoding(PixelSpec.from_json(work["spec"]), settings, worker_count())
        PixelStore.open_or_build(manifest, decoding, Path(work["cache"]), _reporting)


if __name__ == "__main__":
    _decode()
