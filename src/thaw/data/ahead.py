"""Images are decoded in a thread while PyTorch is imported, which takes seconds and one core.

What the network wants of images is known only after that. Until then it is taken to be what the last run with the same
backbone, weights and preprocessing wanted; if that is wrong, or decoding fails, it is done again where it is needed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread

from thaw.cache import recall, remember
from thaw.cores import worker_count
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.errors import ThawError
from thaw.progress import Bar, OnProgress
from thaw.recipe import DEFAULT_BACKBONE, PreprocessingSettings, Recipe

_FILE = "geometry.json"
_STARTER = PixelSpec(size=224, crop_pct=0.875, crop_mode="center", interpolation="bicubic", fill=(128, 128, 128))
"""What the bundled network wants, for the first run of all."""

_WAIT = 0.1


@dataclass
class Ahead:
    """Decoding that goes on: its thread, and what it has done of how many images."""

    thread: Thread
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)

    def wait(self, bar: Bar) -> None:
        """Return when it has ended, in success or failure; its progress is shown."""
        while self.thread.is_alive():
            for title, (done, total) in list(self.progress.items())[-1:]:
                bar(title)(done, total)
            self.thread.join(_WAIT)


def decode_ahead(manifest: Manifest, recipe: Recipe, cache: Path) -> Ahead | None:
    """Start to decode what a run will most likely need; `None` where nothing tells what that is."""
    spec = _expected(recipe, cache)
    if spec is None:
        return None
    # One core is left to what runs meanwhile.
    workers = max(1, worker_count() - 1)
    progress: dict[str, tuple[int, int]] = {}

    def bar(title: str) -> OnProgress:
        def on_progress(done: int, total: int) -> None:
            progress[title] = done, total

        return on_progress

    def decode() -> None:
        # Whoever needs the images meets the same error, and says so. The interpreter may end meanwhile.
        with suppress(ThawError, OSError, RuntimeError):
            PixelStore.open_or_build(manifest, spec, recipe.decode, cache, workers, bar)

    thread = Thread(target=decode, name="thaw-decode-ahead", daemon=True)
    thread.start()
    return Ahead(thread, progress)


def remember_geometry(recipe: Recipe, spec: PixelSpec, cache: Path) -> None:
    """Remember what a network wants for the next run with the same settings."""
    key = _key(recipe)
    if recall(cache, _FILE, key) != _plain(spec):
        remember(cache, _FILE, key, _plain(spec))


def _expected(recipe: Recipe, cache: Path) -> PixelSpec | None:
    if values := recall(cache, _FILE, _key(recipe)):
        with suppress(TypeError, KeyError):
            return PixelSpec(**{**values, "fill": tuple(values["fill"])})
    is_bundled = recipe.backbone in ("starter", DEFAULT_BACKBONE) and recipe.weights == "published"
    return _STARTER if is_bundled and recipe.preprocessing == PreprocessingSettings() else None


def _key(recipe: Recipe) -> str:
    return f"{recipe.backbone} {recipe.weights} {recipe.preprocessing.model_dump_json()}"


def _plain(spec: PixelSpec) -> dict[str, object]:
    """As JSON gives it back."""
    return {**asdict(spec), "fill": list(spec.fill)}
