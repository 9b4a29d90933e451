"""Decoding and extraction on a cluster of two nodes on this machine, compared with one node and with one process.

    python bench/cluster.py [--backbone NAME] [--size PIXELS] [--images N] [--photos N] [--engine NAME] [--rounds N]

Every node has one CPU, which Ray counts but does not reserve: on a machine of two cores one node may also use the idle
one, and two nodes share both with Ray's own processes and with the one that writes. The images are synthetic and the
weights random, which changes nothing about the time. One round is: this process alone with one thread, one node, two
nodes, and two nodes that are sent the views as if they did not see the images; each gives the same entry of the cache.
Photos are JPEG files of 1600 x 1200 pixels, decoded in the first three. Rates are views and photos per second from the
first parts on: the processes of a new node import PyTorch and build the engine first, which takes seconds however long
the job is. `efficiency` is the rate of two nodes divided by twice that of one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image

from thaw.backbones.timm_backbone import build
from thaw.cluster import Cluster, connected
from thaw.data.augment import Augmentation
from thaw.data.cluster_reader import FILES, ClusterReader
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.reader import FEWEST_FOR_NODES, reading_with, reads_on_nodes
from thaw.data.surfaces import write_surfaces
from thaw.device import CPU
from thaw.features.cache import FeatureCache
from thaw.features.cluster_pass import ROWS, ClusterPass
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract
from thaw.features.passes import extracting_with
from thaw.features.view_request import ViewRequest
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import DecodeSettings, PreprocessingSettings

STORE = 200 << 20


def extraction(request: ViewRequest, frozen: FrozenPart, folder: Path) -> tuple[float, float, bytes]:
    """Views per second from the first part on, seconds until then, and the bytes of the entry."""
    times: list[tuple[float, int]] = []
    started = time.perf_counter()
    extract(
        request,
        frozen,
        [frozen.backbone.head_position],
        FeatureCache(folder, "float16"),
        lambda done, total: times.append((time.perf_counter(), done)),
    )
    # Parts of the cluster and batches of one process are compared from the same image on.
    first, done = next((moment, done) for moment, done in times if done >= 2 * ROWS)
    (entry,) = folder.rglob("features.bin")
    return (times[-1][1] - done) / (times[-1][0] - first), first - started, entry.read_bytes()


def write_photos(folder: Path, count: int) -> Manifest:
    """JPEG files of surfaces with noise, half of them of each class."""
    write_surfaces(folder / "surfaces", images_per_class=10, size=400, classes=("ok", "scratch"))
    noise, files = np.random.default_rng(0), sorted((folder / "surfaces").rglob("*.png"))
    for number in range(count):
        file = files[number % len(files)]
        pixels = cv2.resize(np.asarray(Image.open(file)), (1600, 1200)) + noise.normal(0, 4, (1200, 1600))
        photo = folder / "photos" / file.parent.name / f"{number}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photo), pixels.clip(0, 255).astype(np.uint8))
    return Dataset.open(folder / "photos").manifest


def decoding(photos: Manifest, spec: PixelSpec, folder: Path) -> tuple[float, bytes]:
    """Photos per second from the first part on, and the bytes of their pixels."""
    times: list[tuple[float, int]] = []

    def bar(title: str) -> OnProgress:
        begun = times if title == "decode images" else []
        return lambda done, total: begun.append((time.perf_counter(), done))

    store = PixelStore.open_or_build(photos, Decoding(spec, DecodeSettings(), 1), folder, bar)
    first, done = next((moment, done) for moment, done in times if done >= 2 * FILES)
    return (times[-1][1] - done) / (times[-1][0] - first), (store.folder / "pixels.bin").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=2_560)
    parser.add_argument("--photos", type=int, default=768, help="0 for none; a few hundred at least")
    parser.add_argument("--engine", default="openvino-bf16")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    if given.photos and not reads_on_nodes(given.photos):
        parser.error(f"--photos {given.photos}: fewer than {FEWEST_FOR_NODES} are not decoded on nodes")
    torch.set_num_threads(1)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    from ray.cluster_utils import Cluster as RayCluster

    node: dict[str, Any] = {
        "num_cpus": 1,
        "object_store_memory": STORE,
        "node_ip_address": "127.0.0.1",
        "include_dashboard": False,
    }
    backbone = build(given.backbone, "random", PreprocessingSettings(image_size=given.size), "avg", 0)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_surfaces(scratch / "images", images_per_class=20, size=given.size, classes=("ok", "scratch", "stain"))
        manifest = Dataset.open(scratch / "images").manifest
        pixels = PixelStore.open_or_build(
            manifest, Decoding(backbone.facts.pixels, DecodeSettings(), 2), scratch / "cache"
        )
        rows = np.arange(given.images) % len(manifest)
        request = ViewRequest(pixels, rows, 1, Augmentation(), 0)
        rates: dict[str, list[float]] = {}
        photos = write_photos(scratch, given.photos) if given.photos else None
        decoded: dict[str, list[float]] = {}
        entries, entries_of_photos = set(), set()

        def measure(title: str, context: Callable[[], AbstractContextManager[object]]) -> None:
            with tempfile.TemporaryDirectory(dir=scratch) as folder, context():
                frozen = FrozenPart(backbone, CPU, given.engine)
                rate, first, entry = extraction(request, frozen, Path(folder))
            rates.setdefault(title, []).append(rate)
            entries.add(entry)
            print(f"{title:12} {rate:8.1f} views/s, the first {2 * ROWS} after {first:.1f} s", flush=True)
            if photos and title != "sent to two":
                with tempfile.TemporaryDirectory(dir=scratch) as folder, context():
                    rate, content = decoding(photos, backbone.facts.pixels, Path(folder))
                decoded.setdefault(title, []).append(rate)
                entries_of_photos.add(content)
                print(f"{title:12} {rate:8.1f} photos/s", flush=True)

        @contextmanager
        def elsewhere() -> Iterator[None]:
            with reading_with(ClusterReader(cluster, NullReporter())), extracting_with(ClusterPass(cluster)):
                yield

        @contextmanager
        def sending() -> Iterator[None]:
            with patch.object(Cluster, "unseen", return_value="a node does not see them"), elsewhere():
                yield

        for _ in range(given.rounds):
            measure("one process", nullcontext)
            nodes = RayCluster(initialize_head=True, head_node_args=node)
            try:
                with connected(nodes.address) as cluster:
                    measure("one node", elsewhere)
                    nodes.add_node(**node)
                    measure("two nodes", elsewhere)
                    measure("sent to two", sending)
            finally:
                nodes.shutdown()
    titles = ("one process", "one node", "two nodes", "sent to two")
    alone, one, two, sent = (statistics.median(rates[title]) for title in titles)
    print(f"{given.backbone}, {given.size} px, {given.engine}, {given.images} images")
    print(f"entries of the cache are equal: {len(entries) == 1}")
    print(f"one node / one process {one / alone:.2f}, two nodes / one process {two / alone:.2f}")
    print(f"views that are sent / read {sent / two:.2f}")
    print(f"efficiency {two / one / 2:.0%}")
    if photos:
        alone, one, two = (statistics.median(decoded[title]) for title in titles[:3])
        print(f"decoded photos are equal: {len(entries_of_photos) == 1}")
        print(f"one node / one process {one / alone:.2f}, two / one process {two / alone:.2f}")
        print(f"efficiency of decoding {two / one / 2:.0%}")


if __name__ == "__main__":
    main()
