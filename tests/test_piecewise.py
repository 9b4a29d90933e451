from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thaw.piecewise import ItemGrid, PiecewiseFile


def saved(folder: Path, array: np.ndarray) -> Path:
    array.tofile(folder / "items.bin")
    return folder / "items.bin"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype([("levels", "u1", (3, 2)), ("step", "f4", (2,))])])
def test_items_are_read_by_row_and_column_from_several_threads(dtype: np.dtype, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(50 * 4 * dtype.itemsize * 6)
    items = np.frombuffer(content, dtype).reshape(50, 4, 6)
    files = [tmp_path / f"{column}.bin" for column in range(4)]
    for column, file in enumerate(files):
        np.ascontiguousarray(items[:, column]).tofile(file)
    grid = ItemGrid(files, dtype, 50, (6,))
    assert grid.shape == items.shape and grid.block(3, 40).tobytes() == items[3:40].tobytes()
    rows, columns = np.arange(50)[::-1], np.arange(50) % 4
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: grid[rows, columns], range(200)))
    assert all(read.tobytes() == items[rows, columns].tobytes() for read in results)


def test_reading_beyond_the_end_of_a_file_is_an_error(tmp_path: Path) -> None:
    file = PiecewiseFile(saved(tmp_path, np.zeros(10, np.uint8)))
    with pytest.raises(EOFError, match=r"items\.bin: ends 2 bytes too early"):
        file.fill(np.empty(4, np.uint8), 8)


def test_a_file_that_was_removed_can_still_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path, np.arange(10, dtype=np.uint8))
    file, read = PiecewiseFile(path), np.empty(3, np.uint8)
    path.unlink()
    file.fill(read, 7)
    assert read.tolist() == [7, 8, 9]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is in use")
def test_reading_a_large_file_does_not_grow_the_process(tmp_path: Path) -> None:
    # A file of holes takes no room on the disk, but in memory as much as any other where it is mapped.
    with (tmp_path / "items.bin").open("wb") as stream:
        stream.truncate(200 << 20)
    file = PiecewiseFile(tmp_path / "items.bin")
    piece, before = np.empty(1 << 20, np.uint8), resident_bytes()
    for index in range(200):
        file.fill(piece, index << 20)
    assert resident_bytes() - before < 20 << 20
