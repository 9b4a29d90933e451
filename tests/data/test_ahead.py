"""Decoding by a process of its own while PyTorch is imported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.backbones import build
from thaw.data import ahead, pixel_store
from thaw.data.ahead import DecodingAhead, decode_ahead, remember_geometry
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.prepare import DataPreparation, Prepared
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError
from thaw.progress import NullReporter
from thaw.recipe import DecodeSettings, PreprocessingSettings, Recipe

STARTER = Recipe(backbone="starter")
BAR = NullReporter().bar
ENDS_WITHIN = 20.0


@pytest.fixture(autouse=True)
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images are enough, and so is one core."""
    monkeypatch.setattr(ahead, "FEWEST", 1)
    monkeypatch.setattr(ahead, "worker_count", lambda: 2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead") / "images"
    write_surfaces(folder, images_per_class=8, size=48, classes=("ok", "scratch"))
    return folder


@pytest.fixture(scope="module")
def large_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images that take many seconds to decode, though their files are small, and are the same."""
    folder = tmp_path_factory.mktemp("large")
    for name in ("a", "b"):
        (folder / name).mkdir()
        Image.new("RGB", (2500, 2500), "red").save(folder / name / "0.png")
        for number in range(1, 100):
            os.link(folder / name / "0.png", folder / name / f"{number}.png")
    return folder


def started(manifest: Manifest, cache: Path, recipe: Recipe = STARTER) -> DecodingAhead:
    found = decode_ahead(manifest, recipe, cache)
    assert found
    return found


def first_of(manifest: Manifest, count: int) -> Manifest:
    return Manifest(manifest.table.slice(0, count), manifest.classes, manifest.task, manifest.root)


def expected_geometry(manifest: Manifest, cache: Path, recipe: Recipe) -> PixelSpec:
    """With what geometry a process begins to decode; it is not waited for."""
    running = started(manifest, cache, recipe)
    running.process.kill()
    running.finish(running.spec, running.settings, BAR)
    return running.spec


def geometry_of(recipe: Recipe) -> PixelSpec:
    return build(recipe).facts.pixels


def prepared(dataset: Dataset, cache: Path, decode: DecodeSettings = STARTER.decode) -> Prepared:
    preparation = DataPreparation(decode, STARTER.split, None, cache, BAR)
    return preparation.prepare(dataset, geometry_of(STARTER))


def leftovers(cache: Path) -> list[Path]:
    return list((cache / "pixels").glob(".*"))


def wait_for_decoding(cache: Path) -> None:
    """Until there are pixels in the folder that will become the store."""
    until = time.monotonic() + ENDS_WITHIN
    while not any(file.stat().st_size for file in cache.glob("pixels/.*.tmp/pixels.bin")):
        assert time.monotonic() < until, "does not begin"
        time.sleep(0.01)


def never(*_: object) -> None:
    raise AssertionError("decoded again")


def test_what_is_decoded_ahead_is_what_the_run_would_decode(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.open(images)
    alone = prepared(dataset, tmp_path / "alone").pixels
    running = started(dataset.manifest, tmp_path / "ahead")
    monkeypatch.setattr(pixel_store, "_build", never)
    found = prepared(Dataset(dataset.manifest, ahead=running), tmp_path / "ahead").pixels
    assert found.key == alone.key
    assert found.facts.equals(alone.facts)
    assert all(np.array_equal(found.read(row), alone.read(row)) for row in range(16))
    assert running.process.returncode == 0


def test_its_progress_is_shown(large_images: Path, tmp_path: Path) -> None:
    shown: list[tuple[str, int, int]] = []
    running = started(first_of(Dataset.open(large_images).manifest, 10), tmp_path)
    running.finish(running.spec, running.settings, lambda title: lambda *done: shown.append((title, *done)))
    assert [title for title, _, _ in shown][-1] == "decode images"
    assert {total for _, _, total in shown} == {10}


def test_no_process_is_started_for_nothing(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Dataset.open(images).manifest
    # Files that changed in the last seconds are read again, to be sure.
    time.sleep(max(0.0, max(file.stat().st_ctime for file in manifest.files()) + 2.1 - time.time()))
    for cache in (tmp_path, tmp_path / "other"):
        running = started(manifest, cache)
        running.finish(running.spec, running.settings, BAR)
        assert decode_ahead(manifest, STARTER, cache) is None
    monkeypatch.setattr(ahead, "worker_count", lambda: 1)
    assert decode_ahead(manifest, STARTER, tmp_path / "another") is None
    monkeypatch.setattr(ahead, "worker_count", lambda: 2)
    monkeypatch.setattr(ahead, "FEWEST", 17)
    assert decode_ahead(manifest, STARTER, tmp_path / "another") is None


def test_a_changed_image_is_decoded_again(images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "images")
    manifest = Dataset.open(copy).manifest
    first = started(manifest, tmp_path / "cache")
    first.finish(first.spec, first.settings, BAR)
    Image.new("RGB", (48, 48), "red").save(manifest.file(3))
    second = started(manifest, tmp_path / "cache")
    pixels = prepared(Dataset(manifest, ahead=second), tmp_path / "cache").pixels
    assert (pixels.read(3) == (255, 0, 0)).all()


def test_a_process_that_is_killed_is_replaced_by_the_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(60):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (600, 600, 3), np.uint8)).save(file, compress_level=1)
    dataset = Dataset.open(tmp_path / "images")
    running = started(dataset.manifest, tmp_path)
    wait_for_decoding(tmp_path)
    running.process.kill()
    assert len(prepared(Dataset(dataset.manifest, ahead=running), tmp_path).manifest) == 60
    assert leftovers(tmp_path) == []


def test_it_ends_when_the_run_is_killed(large_images: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from thaw.data import ahead
from thaw.data.dataset import Dataset
from thaw.recipe import Recipe
ahead.worker_count = lambda: 2
manifest = Dataset.open(sys.argv[1]).manifest
running = ahead.decode_ahead(manifest, Recipe(backbone="starter"), Path(sys.argv[2]))
print(running.process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(large_images), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        decoder = int(run.stdout.readline())
        wait_for_decoding(tmp_path)
        run.kill()
    until = time.monotonic() + ENDS_WITHIN
    while is_running(decoder):
        assert time.monotonic() < until, "goes on alone"
        time.sleep(0.05)
    assert list((tmp_path / "pixels").glob("*/seal.json")) == []
    assert leftovers(tmp_path) == []


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # Who inherits it may take a while to notice that it has ended.
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def test_it_is_ended_where_the_network_wants_another_geometry(large_images: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(large_images)
    running = started(dataset.manifest, tmp_path)
    wait_for_decoding(tmp_path)
    running.finish(replace(running.spec, size=64), running.settings, BAR)
    assert running.process.poll() is not None
    assert list((tmp_path / "pixels").glob("*/seal.json")) == []
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("strict", [False, True])
def test_the_run_reports_unreadable_images_as_without_it(images: Path, tmp_path: Path, strict: bool) -> None:
    copy = shutil.copytree(images, tmp_path / "images")
    dataset, settings = Dataset.open(copy), DecodeSettings(strict=strict)
    dataset.manifest.file(5).write_bytes(b"no image")
    running = started(dataset.manifest, tmp_path / "ahead", STARTER.model_copy(update={"decode": settings}))
    with_ahead = Dataset(dataset.manifest, ahead=running)
    if strict:
        with pytest.raises(DataError) as expected:
            prepared(dataset, tmp_path / "alone", settings)
        with pytest.raises(DataError, match=f"^{expected.value}$"):
            prepared(with_ahead, tmp_path / "ahead", settings)
    else:
        errors = prepared(dataset, tmp_path / "alone", settings).manifest.errors()
        assert len(errors) == 1
        assert prepared(with_ahead, tmp_path / "ahead", settings).manifest.errors() == errors


def test_an_error_of_the_cache_is_left_to_the_run(images: Path, tmp_path: Path) -> None:
    manifest = Dataset.open(images).manifest
    (tmp_path / "pixels").write_bytes(b"in the way")
    running = started(manifest, tmp_path)
    with pytest.raises(Exception, match="pixels"):
        prepared(Dataset(manifest, ahead=running), tmp_path)


def test_a_later_run_expects_what_the_last_one_with_these_settings_wanted(images: Path, tmp_path: Path) -> None:
    recipe = Recipe(backbone="resnet18", weights="random", preprocessing=PreprocessingSettings(image_size=64))
    spec, manifest = geometry_of(recipe), Dataset.open(images).manifest
    remember_geometry(recipe, spec, tmp_path)
    running = started(manifest, tmp_path, recipe)
    running.finish(spec, recipe.decode, BAR)
    assert PixelStore.open_or_build(manifest, Decoding(spec, recipe.decode, 1), tmp_path).spec == running.spec == spec
    assert expected_geometry(manifest, tmp_path, recipe.model_copy(update={"weights": "published"})) != spec


def test_the_first_run_of_all_expects_what_most_networks_want(images: Path, tmp_path: Path) -> None:
    manifest = Dataset.open(images).manifest
    size = PreprocessingSettings(image_size=96)
    for number, recipe in enumerate(
        (
            STARTER,
            Recipe(backbone="mobilenetv2_100", weights="random"),
            Recipe(backbone="mobilenetv2_100", weights="random", preprocessing=size),
        )
    ):
        assert expected_geometry(manifest, tmp_path / str(number), recipe) == geometry_of(recipe)


@pytest.mark.parametrize("damage", ["null", "{}", '{"size": 3}', "[1]"])
def test_a_damaged_memory_is_no_memory(images: Path, tmp_path: Path, damage: str) -> None:
    remember_geometry(Recipe(backbone="resnet18"), replace(geometry_of(STARTER), size=64), tmp_path)
    file = tmp_path / "geometry.json"
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: json.loads(damage)}))
    assert expected_geometry(Dataset.open(images).manifest, tmp_path, Recipe(backbone="resnet18")).size == 224


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_it_without_leftovers(large_images: Path, tmp_path: Path) -> None:
    # Where the tests themselves ignore the signal, as in the background of a script, so would the process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = started(Dataset.open(large_images).manifest, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for_decoding(tmp_path)
    running.process.send_signal(signal.SIGINT)
    running.finish(running.spec, running.settings, BAR)
    assert list((tmp_path / "pixels").glob("*/seal.json")) == []
    assert leftovers(tmp_path) == []


def test_decoding_waits_for_no_large_library() -> None:
    code = (
        "import sys, thaw.data.ahead; sys.exit(bool({'torch', 'timm', 'sklearn', 'cv2', 'openvino'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
