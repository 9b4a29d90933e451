"""Files read here or on a cluster: the same digests and the same decoded images, wherever they are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL
import pytest

from tests.cluster.two_nodes import TwoNodes, Watching, ignore, losing
from thaw.cluster import Cluster, connected, on_node
from thaw.data import cluster_reader, reader
from thaw.data.cluster_reader import ClusterReader
from thaw.data.dataset import Dataset
from thaw.data.decoding import DecodedFile, Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.data.reader import HERE, reading_with
from thaw.data.surfaces import write_surfaces
from thaw.pipeline import finetune
from thaw.progress import OnProgress
from thaw.recipe import DecodeSettings, Recipe

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")

SPEC = PixelSpec(size=32, crop_pct=0.875, crop_mode="center", interpolation="bicubic", fill=(0, 0, 0))
DECODING = Decoding(SPEC, DecodeSettings(), workers=2)


class Pretended:
    """A cluster whose nodes are this process; they do not see the files of some names."""

    def __init__(self, unseen: Iterable[str] = ()) -> None:
        self._unseen, self.parts = set(unseen), 0

    def unseen(self, sizes: Mapping[str, int]) -> str:
        return next((f"node x: does not see {file}" for file in sizes if Path(file).name in self._unseen), "")

    def starmap(self, function: Callable[..., Any], pieces: Iterable[Sequence[Any]], device: object) -> Generator[Any]:
        for files, states, *how in pieces:
            self.parts += 1
            yield self.unseen(states) or function(files, states, *how)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Images in two folders, one of them twice, one broken, and one missing."""
    monkeypatch.setattr(cluster_reader, "FILES", 4)
    monkeypatch.setattr(reader, "FEWEST_FOR_NODES", 8)
    # On the nodes of this process there is no Ray to name them.
    for module in (cluster_reader, on_node):
        monkeypatch.setattr(module, "this_node", lambda: "node x")
    write_surfaces(tmp_path / "images", images_per_class=8, size=48, classes=("ok", "scratch"))
    found = sorted((tmp_path / "images").rglob("*.png"))
    found[3].write_bytes(b"not an image")
    return [*found, found[0], tmp_path / "images" / "missing.png", found[0]]


def is_equal(found: Iterable[DecodedFile], expected: Iterable[DecodedFile]) -> bool:
    pairs = list(zip(found, expected, strict=True))
    pixels = [(first, second) for (_, first), (_, second) in pairs]
    return all(first[0] == second[0] for first, second in pairs) and all(
        second is None if first is None else second is not None and np.array_equal(first, second)
        for first, second in pixels
    )


@pytest.mark.parametrize("unseen", [(), ("005.png",), None])
def test_files_have_the_same_digests_and_pixels_on_nodes_that_see_all_some_or_none(
    files: list[Path], unseen: tuple[str, ...] | None
) -> None:
    nodes, watching = Pretended([file.name for file in files] if unseen is None else unseen), Watching()
    on_nodes = ClusterReader(cast(Cluster, nodes), watching)
    assert list(on_nodes.digests(files, 2)) == list(HERE.digests(files, 2))
    assert is_equal(on_nodes.decoded(files, DECODING), HERE.decoded(files, DECODING))
    assert nodes.parts == (0 if unseen is None else 2 * -(-len(files) // 4))
    assert len(watching.said) == (unseen != ())
    assert all(line.startswith("images are read here instead of on the nodes: node x: ") for line in watching.said)


def test_a_file_that_is_another_on_a_node_is_read_here(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of the same size, whose copy on the node was changed."""
    expected, nodes, watching = list(HERE.digests(files, 2)), Pretended(), Watching()
    states_of = cluster_reader.states_of

    def before_a_change(part: Sequence[Path]) -> Any:
        return {file: (state[0], state[1] - 1) for file, state in states_of(part).items() if isinstance(state, tuple)}

    monkeypatch.setattr(cluster_reader, "states_of", before_a_change)
    assert list(ClusterReader(cast(Cluster, nodes), watching).digests(files, 2)) == expected
    (sentence,) = watching.said
    assert sentence.startswith("images are read here instead of on the nodes: node x: does not see ")


def test_nodes_with_another_pillow_do_not_decode(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, watching, version = Pretended(), Watching(), PIL.__version__
    dumps = cluster_reader.json.dumps
    monkeypatch.setattr(cluster_reader.json, "dumps", lambda value: dumps({**value, "pillow": "1.0"}))
    found = ClusterReader(cast(Cluster, nodes), watching).decoded(files, DECODING)
    assert is_equal(found, HERE.decoded(files, DECODING)) and nodes.parts
    (sentence,) = watching.said
    assert sentence.endswith(f"node x: has Pillow {version}, and the command 1.0")


def test_few_files_are_read_here(files: list[Path]) -> None:
    nodes = Pretended()
    on_nodes = ClusterReader(cast(Cluster, nodes), Watching())
    assert list(on_nodes.digests(files[:7], 2)) == list(HERE.digests(files[:7], 2)) and nodes.parts == 0


def store(images: Path, cache: Path, moved: OnProgress = ignore) -> dict[str, bytes]:
    """The bytes of a store of decoded images in a cache of its own."""
    built = PixelStore.open_or_build(Dataset.open(images).manifest, DECODING, cache, lambda title: moved)
    return {file.name: file.read_bytes() for file in built.folder.iterdir() if file.name != "seal.json"}


@pytest.mark.slow
@on_linux
def test_images_have_the_same_bytes_from_one_node_from_two_and_when_one_of_two_is_lost(
    ray_nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_reader, "FILES", 8)
    write_surfaces(tmp_path / "images", images_per_class=150, size=48, classes=("ok", "scratch"))
    ray_nodes.add()
    here = store(tmp_path / "images", tmp_path / "here")
    assert len(here["pixels.bin"]) > 300 * 32 * 32 * 3
    with connected(ray_nodes.address) as cluster, reading_with(ClusterReader(cluster, Watching())):
        assert store(tmp_path / "images", tmp_path / "two") == here
        # Every file is hashed and then decoded.
        assert store(tmp_path / "images", tmp_path / "lost", losing(ray_nodes, 200)) == here
        assert "1 node, 1 CPU" in cluster.description
        assert store(tmp_path / "images", tmp_path / "one") == here


@pytest.mark.slow
@on_linux
def test_images_that_a_node_does_not_see_are_decoded_here(blind_node: Cluster, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "images", images_per_class=150, size=48, classes=("ok", "scratch"))
    here, watching = store(tmp_path / "images", tmp_path / "here"), Watching()
    with reading_with(ClusterReader(blind_node, watching)):
        assert store(tmp_path / "images", tmp_path / "there") == here
    (sentence,) = watching.said
    assert sentence.startswith("images are read here instead of on the nodes: node ") and "does not see /" in sentence


@pytest.mark.slow
@on_linux
def test_training_on_a_cluster_decodes_on_its_nodes(
    ray_nodes: TwoNodes, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FEWEST_FOR_NODES", 16)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    write_surfaces(tmp_path / "images", images_per_class=20, size=48, classes=("ok", "scratch"))
    asked: list[Any] = []
    starmap = Cluster.starmap

    def watched(cluster: Cluster, function: Any, *given: Any) -> Any:
        asked.append(function)
        return starmap(cluster, function, *given)

    monkeypatch.setattr(Cluster, "starmap", watched)
    finetune(tmp_path / "images", quick, tmp_path / "runs", False, Watching(), ray_nodes.address)
    assert cluster_reader.digests_of_part in asked and cluster_reader.decoded_part in asked
