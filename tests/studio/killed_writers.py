"""Kill processes that write labels, each at a random moment, and compare what is kept with what was acknowledged.

    python -m tests.studio.killed_writers FOLDER KILLS

Forks a child for every kill, so that Python starts once. A child labels image after image, twenty at a time, and
writes the number of each edit to a pipe once it is acknowledged. Prints how many edits were acknowledged and kept.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.studio.projects import rows
from thaw.studio.labels import Labels
from thaw.studio.marks import Mark

IMAGES = rows(20)


def meant(number: int) -> Mark:
    """The mark that an edit gives to every image."""
    return Mark(f"class{number}")


def _write(file: Path, pipe: int) -> None:
    labels = Labels(IMAGES, file)
    while True:
        edit = labels.edit(dict(enumerate(labels.marks())), meant(labels.changed + 1))
        assert edit
        os.write(pipe, edit.number.to_bytes(4, "big"))


def _acknowledged(pipe: int) -> int:
    """The last number in a pipe."""
    content = b""
    while piece := os.read(pipe, 1 << 16):
        content += piece
    whole = content[: len(content) // 4 * 4]
    return int.from_bytes(whole[-4:], "big") if whole else 0


def _kill_one(file: Path, seconds: float) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _write(file, writing)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    acknowledged = _acknowledged(reading)
    os.close(reading)
    return acknowledged


def main(folder: Path, kills: int) -> None:
    """Kill one writer after the other of the same file."""
    moments, last, kept = random.Random(0), 0, {0}
    for _ in range(kills):
        acknowledged = _kill_one(folder / "labels.jsonl", moments.uniform(0.005, 0.06))
        labels = Labels(IMAGES, folder / "labels.jsonl")
        numbers = [int(mark.label.removeprefix("class")) if mark.label else 0 for mark in labels.marks()]
        # An edit that nobody was told of may be kept, image by image, in whole or in part.
        before = {acknowledged} if acknowledged else kept
        assert labels.changed in (acknowledged or last, (acknowledged or last) + 1), (labels.changed, acknowledged)
        assert set(numbers) <= before | {labels.changed} and numbers == sorted(numbers, reverse=True), numbers
        last, kept = labels.changed, set(numbers)
        labels.close()
    print(last)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
