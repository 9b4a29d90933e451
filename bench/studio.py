"""How fast Studio replies: a refit after a label, scrolling, and the first screen.

    python -m bench.studio

    refit          a linear head is fitted to the labels so far and suggests labels for the next ten images, as after
                   every answer in Label next; 5,000 images, 4 classes, synthetic features (1280, as the starter)
    scrolling      frames per second of the grid with 100,000 images in Chromium without a GPU: 40 pixels a frame, as
                   by a wheel, and a screen a frame, so that every frame shows other images
    first screen   from the start of `thaw studio` on 5,000 images to the first thumbnails in a browser that is open
                   already; the second start, with everything in the cache and in memory

Needs Playwright and Chromium (`/usr/bin/chromium`, or --chromium).
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from thaw.data.manifest import Manifest, new_table
from thaw.data.pixel_store import PixelStore
from thaw.labelling.head import standardised
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.studio.access import StudioAccess
from thaw.studio.app import LIMITS, Quiet, create_app
from thaw.studio.features import ImageFeatures, Snapshot, extract_features
from thaw.studio.label_queue import suggest
from thaw.studio.marks import UNLABELLED, Mark
from thaw.studio.project import Project
from thaw.studio.workspace import Workspace
from thaw.web.listening import bounded_server

CLASSES, WIDTH, NEXT = ("a", "b", "c", "d"), 1280, 10
REPEATS, SECONDS = 20, 4
CONTENTS = 200
"""Different images; the others are links to them."""

_SCROLL = """([step, seconds]) => new Promise((done) => {
    const grid = document.querySelector(".grid"), times = [];
    const begin = performance.now();
    const frame = (now) => {
        times.push(now);
        grid.scrollTop += step < 0 ? grid.clientHeight : step;
        if (now - begin < 1000 * seconds) requestAnimationFrame(frame); else done(times);
    };
    requestAnimationFrame(frame);
})"""


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    print("| what | measured |\n| --- | --- |")
    for labels in (50, 500, given.images // 2):
        times = refits(given.images, labels)
        middle = 1000 * statistics.median(times)
        print(
            f"| refit, {labels:,} labels of {given.images:,} images | median {middle:.0f} ms of {len(times)} |",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as place, browser(given.chromium) as chromium:
        folder = Path(place)
        os.environ["THAW_CACHE"] = str(folder / "cache")
        write_images(folder / "many", given.rows)
        for name, step in (("40 pixels a frame", 40), ("a screen a frame", -1)):
            rate, slowest = scrolling(folder / "many", folder / "project-many", chromium, step)
            print(
                f"| scrolling {given.rows:,} images, {name} | {rate:.0f} frames/s, 95 % within {slowest:.0f} ms |",
                flush=True,
            )
        write_images(folder / "few", given.images)
        first = first_screens(folder / "few", folder / "project-few", chromium)
        print(f"| first screen of {given.images:,} images, warm | {first:.1f} s |", flush=True)


def refits(images: int, labels: int) -> list[float]:
    """Seconds of each refit, with one more label each time."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, len(CLASSES), images)
    centres = generator.normal(size=(len(CLASSES), WIDTH))
    values = (centres[truth] + 6 * generator.normal(size=(images, WIDTH))).astype(np.float32)
    manifest = Manifest(new_table([str(row) for row in range(images)], [[]] * images), (), "multiclass", Path())
    rows = np.arange(images)
    features = ImageFeatures(
        manifest, cast(PixelStore, None), (), (), rows, values, standardised(values), rows, "synthetic"
    )
    marks = [Mark(CLASSES[truth[row]]) if row < labels else UNLABELLED for row in range(images)]
    times = []
    for row in range(labels, labels + REPEATS):
        marks[row] = Mark(CLASSES[truth[row]])
        began = time.perf_counter()
        suggest(Snapshot(features, marks, CLASSES), range(row + 1, row + 1 + NEXT))
        times.append(time.perf_counter() - began)
    return times


def scrolling(images: Path, project: Path, chromium: Any, step: int) -> tuple[float, float]:
    """Frames per second, and the time in milliseconds within which 95 of 100 frames come."""
    with closing(Workspace(Project.open(project, images), Recipe(), NullReporter().bar)) as workspace:
        workspace.start = lambda: None  # type: ignore[method-assign]
        with served(workspace) as address:
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            page.wait_for_selector("#cell-0 .mark")
            times = np.diff(page.evaluate(_SCROLL, [step, SECONDS]))
            page.close()
    return 1000 / float(np.mean(times)), float(np.quantile(times, 0.95))


def first_screens(images: Path, project: Path, chromium: Any) -> float:
    """Seconds to the first screen of a second start."""
    recipe = Recipe(backbone="starter")
    with closing(Workspace(Project.open(project, images), recipe, NullReporter().bar)) as workspace:
        extract_features(workspace.images, recipe, NullReporter().bar)
    command = [
        sys.executable,
        "-m",
        "thaw",
        "studio",
        "--project",
        str(project),
        "--set=backbone=starter",
        "--no-browser",
    ]
    seconds = 0.0
    for _ in range(2):
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout
            try:
                page.goto(process.stdout.readline().split()[1])
                page.wait_for_selector("#cell-0 .mark")
                page.evaluate(
                    "() => Promise.all([...document.querySelectorAll('.cell img')].map((one) => one.decode()))"
                )
                seconds = time.perf_counter() - began
                page.close()
            finally:
                process.terminate()
    return seconds


def write_images(folder: Path, number: int) -> None:
    """A folder of images, of which most are links to others."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for row in range(number):
        if row < CONTENTS:
            content = io.BytesIO()
            pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(content, "JPEG")
            (folder / f"{row}.jpg").write_bytes(content.getvalue())
        else:
            os.link(folder / f"{row % CONTENTS}.jpg", folder / f"{row}.jpg")


@contextmanager
def browser(path: str) -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        yield play.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )


@contextmanager
def served(workspace: Workspace) -> Iterator[str]:
    """The address of a server in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        access = StudioAccess(listening.getsockname()[1])
        server = bounded_server(create_app(workspace, access), LIMITS, Quiet())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{access.port}/?token={access.token}"
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
