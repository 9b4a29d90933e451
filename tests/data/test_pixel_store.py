import errno
import hashlib
import json
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw import atomic
from thaw.cache import CacheEntry, clear
from thaw.data import reader
from thaw.data.decode import decode
from thaw.data.decoding import Decoding, decode_files
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest, new_table
from thaw.data.pixel_store import OnProgress, PixelStore
from thaw.errors import DataError, UnreadableImage, WriteError
from thaw.recipe import DecodeSettings

SPEC = PixelSpec(32, 0.875, "center", "bilinear")
LENIENT, STRICT = DecodeSettings(), DecodeSettings(strict=True)


def save(file: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def manifest(root: Path, *names: str) -> Manifest:
    return Manifest(new_table(names, [["ok"]] * len(names)), ("ok", "crack"), "binary", root)


@pytest.fixture
def images(tmp_path: Path) -> Manifest:
    """Seven readable images of several formats and sizes, one much larger than its stored size."""
    root = tmp_path / "images"
    sizes = {
        "a.png": (48, 40),
        "b.jpg": (40, 90),
        "c.bmp": (7, 5),
        "d.webp": (64, 33),
        "e.tif": (33, 64),
        "below/f.png": (36, 36),
        "large.jpg": (700, 500),
    }
    for seed, (name, size) in enumerate(sizes.items()):
        save(root / name, seed, size)
    return manifest(root, *sizes)


@pytest.fixture
def mixed(tmp_path: Path) -> Manifest:
    """Two readable images among five files that cannot be read, each for a different reason."""
    root = tmp_path / "mixed"
    save(root / "good.png", 1)
    save(root / "last.png", 2)
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("this is not an image")
    (root / "damaged.png").write_bytes(save(root / "damaged.png", 3).read_bytes()[:1000])
    (root / "folder.png").mkdir()
    return manifest(root, "good.png", "empty.png", "text.png", "damaged.png", "folder.png", "missing.png", "last.png")


def store_of(
    rows: Manifest,
    cache: Path,
    settings: DecodeSettings = LENIENT,
    workers: int = 2,
    spec: PixelSpec = SPEC,
    on_progress: OnProgress | None = None,
    reduce_jpeg: bool = True,
) -> PixelStore:
    def bar(title: str) -> OnProgress:
        if on_progress and title == "decode images":
            return on_progress
        return lambda done, total: None

    return PixelStore.open_or_build(rows, Decoding(spec, settings, workers, reduce_jpeg), cache, bar)


def check_equal_to_decoding(store: PixelStore, rows: Manifest, reduce_jpeg: bool = True) -> None:
    for row in range(len(rows)):
        expected = decode(rows.file(row).read_bytes(), LENIENT, store.spec, reduce_jpeg).pixels
        np.testing.assert_array_equal(store.read(row), expected)


def content(cache: Path) -> dict[str, bytes]:
    """The content of the store, without the seal, which contains times."""
    files = [file for file in cache.rglob("*") if file.is_file() and file.name != atomic.SEAL]
    return {str(file.relative_to(cache)): file.read_bytes() for file in files}


def leftovers(cache: Path) -> list[Path]:
    """Stores, and whatever else is not the list of digests."""
    return [path for path in (cache / "pixels").iterdir() if not path.name.endswith(".digests.json")]


def the_folder(cache: Path) -> Path:
    (folder,) = leftovers(cache)
    return folder


def was_built(rows: Manifest, cache: Path) -> bool:
    """Whether opening the store now decodes the images again."""
    steps: list[int] = []
    store_of(rows, cache, on_progress=lambda done, total: steps.append(done))
    return bool(steps)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("reduce_jpeg", [True, False])
def test_stored_images_equal_decoded_files(images: Manifest, tmp_path: Path, mode: str, reduce_jpeg: bool) -> None:
    spec = PixelSpec(32, 0.875, mode, "bicubic")
    store = store_of(images, tmp_path / "cache", spec=spec, reduce_jpeg=reduce_jpeg)
    check_equal_to_decoding(store, images, reduce_jpeg)
    for row in range(len(images)):
        np.testing.assert_array_equal(store.plain(row), spec.crop(store.read(row)))
        assert store.plain(row).shape == (32, 32, 3)


def test_a_store_does_not_depend_on_the_number_of_workers(images: Manifest, tmp_path: Path) -> None:
    contents = []
    for workers in (1, 2, 16):
        store_of(images, tmp_path / str(workers), workers=workers)
        contents.append(content(tmp_path / str(workers)))
    assert contents[0] == contents[1] == contents[2]


def test_more_images_than_are_read_ahead_stay_in_order(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        save(tmp_path / "images" / name, number, (2 + number % 5, 3))
    rows = manifest(tmp_path / "images", *names)
    check_equal_to_decoding(store_of(rows, tmp_path / "cache", workers=3), rows)


def test_stored_pixels_cannot_be_written_to(images: Manifest, tmp_path: Path) -> None:
    pixels = store_of(images, tmp_path / "cache").read(0)
    with pytest.raises(ValueError, match="read-only"):
        pixels[...] = 0


def test_pixels_are_not_read_back_after_they_were_written(
    images: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, checksum = [], atomic._checksum
    monkeypatch.setattr(atomic, "_checksum", lambda file: read.append(file) or checksum(file))
    store = store_of(images, tmp_path / "cache")
    # When it is opened it is, as it is small; not in the temporary folder that it was written to.
    assert [file.parent for file in read if file.name == "pixels.bin"] == [store.folder]


def test_a_store_is_reused(images: Manifest, tmp_path: Path) -> None:
    first = store_of(images, tmp_path / "cache")
    files = [file for file in the_folder(tmp_path / "cache").iterdir() if file.name != atomic.SEAL]
    before = {file: file.stat() for file in files}
    assert not was_built(images, tmp_path / "cache")
    second = store_of(images, tmp_path / "cache", workers=5)
    assert {file: file.stat().st_mtime_ns for file in before} == {
        file: stat.st_mtime_ns for file, stat in before.items()
    }
    assert second.key == first.key
    assert second.facts.equals(first.facts)
    check_equal_to_decoding(second, images)


def test_a_data_set_that_has_grown_is_decoded_where_it_is_new(
    images: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, afresh = tmp_path / "cache", tmp_path / "afresh"
    (images.root / "broken.png").write_bytes(b"no image")
    some = manifest(images.root, "large.jpg", "broken.png", "b.jpg", "e.tif")
    store_of(some, cache)
    save(images.root / "again.png", 1, (40, 90))
    names = ["a.png", "b.jpg", "missing.png", "again.png", "broken.png", "below/f.png", "e.tif", "large.jpg"]
    grown = manifest(images.root, *names)
    whole = store_of(grown, afresh)
    decoded: list[str] = []
    monkeypatch.setattr(
        reader, "decode_files", lambda files, _: decoded.extend(file.name for file in files) or decode_files(files, _)
    )
    store = store_of(grown, cache)
    assert decoded == ["a.png", "missing.png", "again.png", "broken.png", "f.png"]
    assert store.key == whole.key and store.captures() == whole.captures() and store.facts.equals(whole.facts)
    assert content(store.folder) == content(whole.folder)


@pytest.mark.parametrize("change", ["geometry", "white level", "damage"])
def test_images_are_taken_from_intact_stores_of_equal_rules_only(images: Manifest, tmp_path: Path, change: str) -> None:
    cache, some = tmp_path / "cache", manifest(images.root, "a.png", "b.jpg")
    if change == "geometry":
        store_of(some, cache, spec=PixelSpec(32, 1.0, "center", "bilinear"))
    elif change == "white level":
        store_of(some, cache, DecodeSettings(white_level=1023))
    else:
        pixels = store_of(some, cache).folder / "pixels.bin"
        pixels.write_bytes(flip_middle(pixels.read_bytes()))
    check_equal_to_decoding(store_of(images, cache), images)


def test_stores_that_no_run_used_for_long_leave_half_of_the_disk_free(
    images: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, names = tmp_path / "cache", images.column("path")
    stores = [store_of(manifest(images.root, *names[:number]), cache) for number in (3, 4, 5)]
    stores[0].duplicates(workers=1)
    for days, store in enumerate(reversed(stores)):
        time = store.folder.stat().st_mtime - days * 86400
        os.utime(store.folder / atomic.SEAL, (time, time))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Namespace(free=0))
    newest = store_of(images, cache)
    # The one that was used in the last day stays.
    assert {folder.name for folder in leftovers(cache)} == {stores[2].key, newest.key}
    check_equal_to_decoding(stores[0], manifest(images.root, *names[:3]))


def test_stores_stay_while_the_disk_has_room(images: Manifest, tmp_path: Path) -> None:
    cache, names = tmp_path / "cache", images.column("path")
    old = store_of(manifest(images.root, *names[:3]), cache)
    os.utime(old.folder / atomic.SEAL, (0, 0))
    assert {folder.name for folder in leftovers(cache)} == {old.key} and store_of(images, cache).key != old.key
    assert len(leftovers(cache)) == 2


def test_progress_counts_every_image_when_a_store_is_built(images: Manifest, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    store_of(images, tmp_path / "cache", on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 7) for done in range(1, 8)]


def flip_first(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def flip_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x80]) + data[middle + 1 :]


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def cut_one(data: bytes) -> bytes:
    return data[:-1]


def cut_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", ["pixels.bin", "rows.parquet", "seal.json"])
@pytest.mark.parametrize("damage", [flip_first, flip_middle, flip_last, cut_one, cut_half, empty])
def test_a_damaged_store_is_rebuilt(
    images: Manifest, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    cache = tmp_path / "cache"
    store_of(images, cache)
    whole = content(cache)
    file = the_folder(cache) / name
    file.write_bytes(damage(file.read_bytes()))
    assert was_built(images, cache)
    assert content(cache) == whole


@pytest.mark.parametrize("name", ["pixels.bin", "rows.parquet", "seal.json"])
def test_a_store_with_a_missing_file_is_rebuilt(images: Manifest, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    store_of(images, cache)
    (the_folder(cache) / name).unlink()
    assert was_built(images, cache)
    check_equal_to_decoding(store_of(images, cache), images)


def test_a_changed_image_file_is_decoded_again(images: Manifest, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = store_of(images, cache).read(0).copy()
    save(images.file(0), 99)
    after = store_of(images, cache)
    assert (after.read(0) != before).any()
    check_equal_to_decoding(after, images)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_image_replaced_by_one_of_equal_size_and_time_is_decoded_again(tmp_path: Path, in_place: bool) -> None:
    cache, rows, file = tmp_path / "cache", manifest(tmp_path, "a.bmp"), tmp_path / "a.bmp"
    size = save(file, 1).stat().st_size
    os.utime(file, ns=(0, 1_000_000_000))
    old = store_of(rows, cache)
    if not in_place:
        file.unlink()
    assert save(file, 2).stat().st_size == size
    os.utime(file, ns=(0, 1_000_000_000))
    new = store_of(rows, cache)
    assert new.key != old.key
    assert new.facts.column("sha256")[0].as_py() == hashlib.sha256(file.read_bytes()).hexdigest()
    check_equal_to_decoding(new, rows)
    check_equal_to_decoding(store_of(rows, cache), rows)


def test_images_that_were_touched_copied_or_moved_are_not_decoded_again(images: Manifest, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    key = store_of(images, cache).key
    os.utime(images.file(0))
    assert not was_built(images, cache)
    copy = replace(images, root=Path(shutil.copytree(images.root, tmp_path / "copy")))
    assert not was_built(copy, cache)
    assert store_of(copy, cache).key == key


def test_an_image_that_changes_while_images_are_decoded_is_an_error(images: Manifest, tmp_path: Path) -> None:
    def change_the_last(done: int, total: int) -> None:
        images.file(6).write_bytes(b"another content")

    with pytest.raises(DataError, match=r"large\.jpg: was changed while it was read; run this again"):
        store_of(images, tmp_path / "cache", workers=1, on_progress=change_the_last)
    assert leftovers(tmp_path / "cache") == []


def test_a_formerly_missing_file_is_decoded(mixed: Manifest, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert store_of(mixed, cache).facts.column("status")[5].as_py() == "error"
    save(mixed.root / "missing.png", 5)
    assert store_of(mixed, cache).facts.column("status")[5].as_py() == "ok"


def test_other_rows_or_another_decoding_have_other_stores(images: Manifest, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keys = [
        store_of(images, cache).key,
        store_of(manifest(images.root, "a.png", "b.jpg"), cache).key,
        store_of(manifest(images.root, "b.jpg", "a.png"), cache).key,
        store_of(images, cache, spec=PixelSpec(32, 1.0, "center", "bilinear")).key,
        store_of(images, cache, DecodeSettings(white_level=1023)).key,
        store_of(images, cache, DecodeSettings(max_pixels=1_000_000)).key,
        store_of(images, cache, reduce_jpeg=False).key,
    ]
    assert len(set(keys)) == len(keys) == len(leftovers(cache))


def test_facts_about_files_are_added_to_the_manifest(images: Manifest, tmp_path: Path) -> None:
    described = store_of(images, tmp_path / "cache").describe(images)
    assert described.column("status") == ["ok"] * 7
    assert described.column("width") == [48, 40, 7, 64, 33, 36, 700]
    assert described.column("height") == [40, 90, 5, 33, 64, 36, 500]
    assert described.column("mode") == ["RGB"] * 7
    data = [images.file(row).read_bytes() for row in range(7)]
    assert described.column("bytes") == [len(each) for each in data]
    assert described.column("sha256") == [hashlib.sha256(each).hexdigest() for each in data]
    assert described.column("labels") == images.column("labels")


def test_notes_on_files_are_stored(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    store = store_of(manifest(tmp_path, "a.png", "pages.tif"), tmp_path / "cache")
    assert store.facts.column("note").to_pylist() == [None, "first of 3 pages"]


def test_unreadable_files_become_error_rows_with_reasons(mixed: Manifest, tmp_path: Path) -> None:
    store = store_of(mixed, tmp_path / "cache")
    described = store.describe(mixed)
    assert described.column("status") == ["ok", "error", "error", "error", "error", "error", "ok"]
    reasons = dict(described.errors())
    assert "empty" in reasons["empty.png"]
    assert "not a JPEG" in reasons["text.png"]
    assert "damaged" in reasons["damaged.png"]
    assert reasons["missing.png"] == "no such file"
    assert reasons["folder.png"]
    for row in (0, 6):
        expected = decode(mixed.file(row).read_bytes(), LENIENT, SPEC).pixels
        np.testing.assert_array_equal(store.read(row), expected)
    for row in range(1, 6):
        with pytest.raises(UnreadableImage) as caught:
            store.read(row)
        assert str(caught.value) == reasons[mixed.column("path")[row]]


def test_error_rows_are_stored(mixed: Manifest, tmp_path: Path) -> None:
    first = store_of(mixed, tmp_path / "cache")
    assert not was_built(mixed, tmp_path / "cache")
    assert store_of(mixed, tmp_path / "cache").facts.equals(first.facts)


def test_strict_decoding_stops_at_the_first_unreadable_file(mixed: Manifest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empty\.png: cannot be read: .*decode\.strict"):
        store_of(mixed, tmp_path / "cache", STRICT)
    assert leftovers(tmp_path / "cache") == []


def test_strict_decoding_refuses_a_store_with_unreadable_rows(mixed: Manifest, tmp_path: Path) -> None:
    store_of(mixed, tmp_path / "cache")
    with pytest.raises(DataError, match=r"empty\.png: cannot be read: .*decode\.strict"):
        store_of(mixed, tmp_path / "cache", STRICT)


def test_strict_decoding_of_readable_files_uses_the_same_store(images: Manifest, tmp_path: Path) -> None:
    assert store_of(images, tmp_path / "cache", STRICT).key == store_of(images, tmp_path / "cache").key


def test_a_data_set_without_readable_images_is_refused(mixed: Manifest, tmp_path: Path) -> None:
    rows = manifest(mixed.root, "empty.png", "missing.png")
    with pytest.raises(DataError, match=r"none of 2 images can be read \(.*empty\.png: the file is empty"):
        store_of(rows, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 0 images"):
        store_of(manifest(tmp_path), tmp_path / "cache")


def test_a_full_disk_reports_the_required_space(images: Manifest, tmp_path: Path) -> None:
    def fill_the_disk(done: int, total: int) -> None:
        if done == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"the disk is full .* 7 images need about \d+ kB\); .*THAW_CACHE"):
        store_of(images, tmp_path / "cache", on_progress=fill_the_disk)
    assert leftovers(tmp_path / "cache") == []


def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(images: Manifest, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_of(images, tmp_path / "cache", on_progress=interrupt)
    assert leftovers(tmp_path / "cache") == []
    check_equal_to_decoding(store_of(images, tmp_path / "cache"), images)


def test_a_store_that_is_cleared_before_it_is_opened_is_built_again(
    images: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[CacheEntry] = []
    is_intact = atomic.is_intact

    def intact_until_cleared(folder: Path) -> bool:
        found = is_intact(folder)
        if found and not cleared:
            cleared.extend(clear(tmp_path / "cache"))
        return found

    monkeypatch.setattr(atomic, "is_intact", intact_until_cleared)
    check_equal_to_decoding(store_of(images, tmp_path / "cache"), images)
    assert len(cleared) == 1


def test_clearing_the_cache_while_a_store_is_built_or_used_does_not_disturb_it(
    images: Manifest, tmp_path: Path
) -> None:
    def clear_at_every_step(done: int, total: int) -> None:
        clear(tmp_path / "cache")

    store = store_of(images, tmp_path / "cache", on_progress=clear_at_every_step)
    clear(tmp_path / "cache")
    check_equal_to_decoding(store, images)
    assert store.duplicates(workers=1) == store.duplicates(workers=1)


def test_a_store_that_is_sealed_but_cannot_be_read_is_built_again(images: Manifest, tmp_path: Path) -> None:
    key = store_of(images, tmp_path / "cache").key
    clear(tmp_path / "cache")
    with atomic.sealed_folder(tmp_path / "cache" / "pixels" / key) as folder:
        (folder / "rows.parquet").write_bytes(b"not Parquet")
        (folder / "pixels.bin").write_bytes(b"")
    check_equal_to_decoding(store_of(images, tmp_path / "cache"), images)


def test_near_duplicates_are_found_again_where_their_file_is_damaged(images: Manifest, tmp_path: Path) -> None:
    store = store_of(images, tmp_path / "cache")
    found = store.duplicates(workers=1)
    (file,) = (tmp_path / "cache" / "pixels").glob("*.duplicates-*.json")
    file.write_text(json.dumps({"content": [[0, 1, 1.0]], "crc32": 0}))
    assert store.duplicates(workers=1) == found
