"""Features from a cluster have the bytes of those from here, also from nodes that do not see the decoded images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.two_nodes import TwoNodes, Watching, ignore, losing, threads
from tests.runs import outcome
from thaw.backbones import build
from thaw.cluster import Cluster, Shipment, connected
from thaw.data.augment import PRESETS
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.pixel_store import PixelStore
from thaw.data.surfaces import write_surfaces
from thaw.device import CPU
from thaw.features import cluster_pass
from thaw.features.cache import FeatureCache
from thaw.features.cluster_pass import ClusterPass
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract
from thaw.features.passes import extracting_with
from thaw.features.view_request import ViewRequest
from thaw.pipeline import finetune
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import DecodeSettings, Recipe
from thaw.run_folder import RunFolder

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


Extract = Callable[[str, OnProgress], dict[str, bytes]]
"""Extracts features into a cache of a name; gives the bytes of its entries."""


@pytest.fixture
def entries(images: Path, quick: Recipe, tmp_path: Path) -> Iterator[Extract]:
    backbone, manifest = build(quick), Dataset.open(images).manifest
    pixels = PixelStore.open_or_build(
        manifest, Decoding(backbone.facts.pixels, DecodeSettings(), 1), tmp_path / "store"
    )
    # The last part and the last batch are not full.
    rows = np.tile(np.arange(36), 31)[:1_100]
    request = ViewRequest(pixels, rows, 2, PRESETS["light"], seed=5)

    def extracted(name: str, moved: OnProgress = ignore) -> dict[str, bytes]:
        frozen, folder = FrozenPart(backbone, CPU, "pytorch-fp32"), tmp_path / name
        extract(request, frozen, [3, backbone.head_position], FeatureCache(folder, "float16"), moved)
        found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.bin")}
        assert len(found) == 8 and all(any(content) for path, content in found.items() if path.endswith("features.bin"))
        return found

    with threads(1):
        yield extracted


@slow
@on_linux
def test_features_have_the_same_bytes_on_one_node_on_two_and_when_one_of_two_is_lost(
    ray_nodes: TwoNodes, entries: Extract
) -> None:
    ray_nodes.add()
    here = entries("here", ignore)
    # One connection, so that the processes of the nodes start once.
    with connected(ray_nodes.address) as cluster, extracting_with(ClusterPass(cluster)):
        assert entries("two", ignore) == here
        assert entries("lost", losing(ray_nodes, 500)) == here
        assert "1 node, 1 CPU" in cluster.description
        assert entries("one", ignore) == here


@slow
@on_linux
@pytest.mark.parametrize("measured", [True, False], ids=["all are sent", "what a node does not see is sent"])
def test_views_are_sent_to_nodes_that_do_not_see_the_images_also_when_one_is_lost(
    ray_nodes: TwoNodes, blind_node: Cluster, entries: Extract, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    if not measured:
        monkeypatch.setattr(Cluster, "unseen", lambda cluster, sizes: "")
    here, watching = entries("here", ignore), Watching()
    with Shipment(watching) as shipment, extracting_with(ClusterPass(blind_node, shipment)):
        assert entries("there", ignore) == here
        assert entries("lost", losing(ray_nodes, 500)) == here
    assert "1 node, 1 CPU" in blind_node.description
    first, last = watching.said
    assert first.startswith("images are sent to the nodes through Ray: node ") and ": does not see /" in first
    # 1,100 images of 64 px in two views, twice: 54.1 MB. The last view may be that of one node, which sees them.
    sent = float(last.removeprefix("sent ").removesuffix(" MB of images to the nodes"))
    assert 40 < sent < 55 if measured else 1 < sent < 54


@slow
@on_linux
def test_a_run_whose_features_come_from_a_cluster_is_the_same_run(
    ray_nodes: TwoNodes, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_nodes.add()
    write_surfaces(tmp_path / "images", images_per_class=40, size=64, classes=("ok", "scratch"))
    monkeypatch.setattr(cluster_pass, "ROWS", 32)
    asked: list[int] = []
    starmap = Cluster.starmap
    monkeypatch.setattr(Cluster, "starmap", lambda *given: (asked.append(1), starmap(*given))[1])

    def trained_with(name: str, cluster: str | None) -> RunFolder:
        monkeypatch.setenv("THAW_CACHE", str(tmp_path / f"cache of {name}"))
        recipe = quick.with_settings({"threads": 1})
        finetune(Dataset.open(tmp_path / "images"), recipe, tmp_path / name, False, NullReporter(), cluster)
        return RunFolder(tmp_path / name / "train-1")

    there = outcome(trained_with("there", ray_nodes.address))
    assert len(asked) >= 2
    assert there == outcome(trained_with("here", None))
