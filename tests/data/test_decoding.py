import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thaw.data import decoding
from thaw.data.child_process import start_process
from thaw.data.decoding import DecodedFile, Decoding, decode_files
from thaw.data.geometry import PixelSpec
from thaw.recipe import DecodeSettings

BY = Decoding(PixelSpec(32, 0.875, "center", "bicubic", (0, 0, 0)), DecodeSettings(), reduce_jpeg=True, workers=2)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of several sizes, a file that is none, one that is not there, and a name that is not UTF-8."""
    draws = np.random.default_rng(0)
    found = []
    for number in range(6):
        found.append(tmp_path / f"{number}.png")
        Image.fromarray(draws.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)).save(found[-1])
    (tmp_path / "text.jpg").write_text("no image")
    found += [tmp_path / "text.jpg", tmp_path / "absent.jpg"]
    if sys.platform == "linux":
        found.append(tmp_path / os.fsdecode(b"caf\xe9.png"))
        found[0].rename(found[-1])
    return found


@pytest.fixture
def by_processes(monkeypatch: pytest.MonkeyPatch) -> list[Popen[bytes]]:
    """Few files and cores are enough; the processes that are started."""
    started: list[Popen[bytes]] = []

    def start(module: str, request: Mapping[str, Any]) -> Popen[bytes] | None:
        process = start_process(module, request)
        assert process
        started.append(process)
        return process

    monkeypatch.setattr(decoding, "FEWEST", 1)
    monkeypatch.setattr(decoding, "LEAST_WORKERS", 1)
    monkeypatch.setattr(decoding, "start_process", start)
    return started


def equal(found: list[DecodedFile], expected: list[DecodedFile]) -> bool:
    return [row for row, _ in found] == [row for row, _ in expected] and all(
        np.array_equal(one, other) for (_, one), (_, other) in zip(found, expected, strict=True) if one is not None
    )


def test_processes_decode_as_threads_do(files: list[Path], by_processes: list[Popen[bytes]]) -> None:
    found = list(decode_files(files, BY))
    assert len(by_processes) == 2 and {row.status for row, _ in found} == {"ok", "error"}
    assert equal(found, list(decoding._by_threads(files, BY)))


def test_what_a_killed_process_leaves_is_decoded_all_the_same(
    files: list[Path], by_processes: list[Popen[bytes]]
) -> None:
    results = decode_files(files * 4, BY)
    found = [next(results)]
    by_processes[1].kill()
    found += results
    assert equal(found, list(decoding._by_threads(files * 4, BY)))


def test_processes_end_with_whoever_wants_no_more(files: list[Path], by_processes: list[Popen[bytes]]) -> None:
    results = decode_files(files * 50, BY)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert by_processes and all(process.poll() is not None for process in by_processes)


def test_few_files_or_cores_start_no_process(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "start_process", None)
    assert len(list(decode_files(files, BY))) == len(files)


def test_what_cannot_be_started_is_decoded_here(
    files: list[Path], by_processes: list[Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setattr(decoding, "start_process", start_process)
    assert equal(list(decode_files(files, BY)), list(decoding._by_threads(files, BY)))
    assert not by_processes
