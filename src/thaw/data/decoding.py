"""Decodes many image files at once, in their order: each becomes facts about the file and its resized pixels.

On few cores by threads. On many by processes (`thaw.data.decoding_process`), because threads wait for each other at
Python's global lock: 16 threads on 16 cores decode no more than 720 to 880 images of 258 px per second.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from subprocess import Popen
from typing import Any, BinaryIO

import numpy as np

from thaw.data.child_process import start_process
from thaw.data.decode import decode
from thaw.data.geometry import PixelSpec
from thaw.data.image_file import read_image_file
from thaw.errors import UnreadableImage
from thaw.recipe import DecodeSettings

FEWEST = 1_000
"""Files from which processes pay: they take half a second to start."""

LEAST_WORKERS = 4
"""Cores from which they do: on two, threads are as fast."""

_AHEAD_PER_WORKER = 4


@dataclass(frozen=True)
class Decoding:
    """How files are decoded.

    workers: how many files at the same time, on which the pixels do not depend. reduce_jpeg: as in `decode`.
    """

    spec: PixelSpec
    settings: DecodeSettings
    workers: int
    reduce_jpeg: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return {
            "spec": asdict(self.spec),
            "settings": self.settings.model_dump(),
            "reduce_jpeg": self.reduce_jpeg,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decoding:
        """What `to_json` gave, for one file at a time."""
        settings = DecodeSettings(**values["settings"])
        return cls(PixelSpec.from_json(values["spec"]), settings, 1, values["reduce_jpeg"])


@dataclass(frozen=True)
class DecodedRow:
    """Facts about one file; sizes are `None` or 0 for an unreadable one."""

    sha256: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    status: str = "error"
    reason: str | None = None
    note: str | None = None
    captured: str | None = None
    device: str | None = None
    stored_width: int = 0
    stored_height: int = 0


DecodedFile = tuple[DecodedRow, np.ndarray | None]
"""The facts about a file, and its resized pixels (H, W, 3) uint8 if it can be read."""


def decode_files(files: Sequence[Path], decoding: Decoding) -> Iterator[DecodedFile]:
    """Every file, with only a few in memory at a time."""
    if decoding.workers >= LEAST_WORKERS and len(files) >= FEWEST:
        return _by_processes(files, decoding)
    return _by_threads(files, decoding)


def decode_file(file: Path, decoding: Decoding) -> DecodedFile:
    """One file."""
    try:
        data = read_image_file(file)
    except UnreadableImage as error:
        return DecodedRow(reason=str(error)), None
    digest = hashlib.sha256(data).hexdigest()
    try:
        image = decode(data, decoding.settings, decoding.spec, decoding.reduce_jpeg)
    except UnreadableImage as error:
        return DecodedRow(digest, len(data), reason=str(error)), None
    stored_height, stored_width = image.pixels.shape[:2]
    row = DecodedRow(
        digest,
        len(data),
        image.width,
        image.height,
        image.mode,
        status="ok",
        note=image.note or None,
        captured=image.capture.time or None,
        device=image.capture.device or None,
        stored_width=stored_width,
        stored_height=stored_height,
    )
    return row, image.pixels


def write_decoded(decoded: DecodedFile, stream: BinaryIO) -> None:
    """Write one file's result as a line of JSON and the bytes of the pixels."""
    row, pixels = decoded
    stream.write(json.dumps(asdict(row)).encode() + b"\n")
    if pixels is not None:
        stream.write(np.ascontiguousarray(pixels).data)


def read_decoded(stream: BinaryIO) -> DecodedFile | None:
    """What `write_decoded` wrote; `None` where the stream ends before or within it."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    row = DecodedRow(**json.loads(line))
    if not row.stored_height:
        return row, None
    pixels = np.empty((row.stored_height, row.stored_width, 3), np.uint8)
    return (row, pixels) if _filled(stream, pixels.reshape(-1).data) else None


def _filled(stream: BinaryIO, view: memoryview) -> bool:
    """Whether the stream had enough bytes to fill a view."""
    done = 0
    while done < len(view):
        read = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not read:
            return False
        done += read
    return True


def _by_threads(files: Sequence[Path], decoding: Decoding) -> Iterator[DecodedFile]:
    with ThreadPoolExecutor(decoding.workers) as pool:
        started = (pool.submit(decode_file, file, decoding) for file in files)
        waiting = deque(islice(started, decoding.workers * _AHEAD_PER_WORKER))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(islice(started, 1))


def _by_processes(files: Sequence[Path], decoding: Decoding) -> Iterator[DecodedFile]:
    """Process k decodes every file whose number is k modulo their count, and is read in turn.

    What a process does not decode, because it was ended or could not be started, is decoded here.
    """
    with ExitStack() as stack:
        streams = [
            _stream_of_process(files[first :: decoding.workers], decoding, stack) for first in range(decoding.workers)
        ]
        for number, file in enumerate(files):
            stream = streams[number % len(streams)]
            decoded = read_decoded(stream) if stream else None
            if decoded is None:
                streams[number % len(streams)] = None
                decoded = decode_file(file, decoding)
            yield decoded


def _stream_of_process(files: Sequence[Path], decoding: Decoding, stack: ExitStack) -> BinaryIO | None:
    """The output of a process that decodes some files; it is ended with the stack."""
    request = {"files": [str(file) for file in files], "decoding": decoding.to_json()}
    process = start_process("thaw.data.decoding_process", request)
    if process is None:
        return None
    stack.callback(_end, process)
    return process.stdout  # type: ignore[return-value]


def _end(process: Popen[bytes]) -> None:
    process.kill()
    with process:
        pass
