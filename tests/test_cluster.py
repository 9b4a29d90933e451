"""Work on a cluster gives what one process gives, in order, also after a node is lost; bad input is one sentence."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thaw
from tests.cli.running import thaw as command
from tests.runs import outcome
from tests.searches import RECIPE, SPACE
from thaw import cluster as clusters
from thaw.backbones import build
from thaw.bundle import digest_of
from thaw.cluster import Cluster, Device, connected
from thaw.cluster_prediction import ClusterClassify
from thaw.data.augment import PRESETS
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.surfaces import write_surfaces
from thaw.device import CPU
from thaw.errors import ClusterError, PackageError
from thaw.features import cluster_pass
from thaw.features.cache import FeatureCache
from thaw.features.cluster_pass import ClusterPass
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract
from thaw.features.passes import extracting_with
from thaw.features.view_request import ViewRequest
from thaw.pipeline import cross_validate, finetune, load, search
from thaw.prediction.inputs import files_at
from thaw.prediction.job import PredictJob, write_predictions
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import DecodeSettings, Recipe
from thaw.remote import mirrored
from thaw.run_folder import RunFolder
from thaw.run_folder.search_folder import SearchFolder
from thaw.tuning.clock import Limits

STORE = 100 << 20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow
FILES = 5_000
COMMAND = [sys.executable, "-c", "from thaw.cli import main; main()"]


class TwoNodes:
    """A head and, on request, a second node, of one CPU each, on loopback."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._node = {
            "num_cpus": 1,
            "object_store_memory": STORE,
            "node_ip_address": "127.0.0.1",
            "include_dashboard": False,
        }
        self._cluster = RayCluster(initialize_head=True, head_node_args=self._node)
        self._second: Any = None

    @property
    def address(self) -> str:
        return self._cluster.address

    def add(self) -> None:
        self._second = self._second or self._cluster.add_node(**self._node)

    def lose(self) -> None:
        """The second node is gone at once, as if its machine had lost its power."""
        if self._second is not None:
            node, self._second = self._second, None
            self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray reads it when it is first imported, and otherwise replaces 127.0.0.1 by an address that others know.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        pytest.importorskip("ray", reason="needs the extra ray")
        # The nodes run the code that is tested.
        paths = [str(Path(thaw.__file__).parents[1]), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        started = TwoNodes()
        try:
            yield started
        finally:
            started.close()


@pytest.fixture
def one(nodes: TwoNodes) -> Iterator[Cluster]:
    with connected(nodes.address) as cluster:
        yield cluster


@pytest.fixture
def two(nodes: TwoNodes) -> Iterator[Cluster]:
    nodes.add()
    with connected(nodes.address) as cluster:
        assert "2 nodes, 2 CPUs" in cluster.description
        yield cluster
    nodes.lose()


def losing(nodes: TwoNodes, after: int) -> OnProgress:
    """Progress that loses the second node when so much is done and more is to be done."""
    lost = []

    def moved(done: int, total: int) -> None:
        if done >= after and not lost:
            assert done < total, "everything was done before the node was lost"
            lost.append(done)
            nodes.lose()

    return moved


def ignore(done: int, total: int) -> None:
    """Progress that nobody sees."""


@slow
@on_linux
def test_features_have_the_same_bytes_on_one_node_on_two_and_when_one_of_two_is_lost(
    nodes: TwoNodes, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    backbone, manifest = build(quick), Dataset.open(images).manifest
    pixels = PixelStore.open_or_build(
        manifest, Decoding(backbone.facts.pixels, DecodeSettings(), 1), tmp_path / "store"
    )
    # The last part and the last batch are not full.
    rows = np.tile(np.arange(36), 31)[:1_100]
    request = ViewRequest(pixels, rows, 2, PRESETS["light"], seed=5)

    def entries(name: str, moved: OnProgress = ignore) -> dict[str, bytes]:
        frozen, folder = FrozenPart(backbone, CPU, "pytorch-fp32"), tmp_path / name
        extract(request, frozen, [3, backbone.head_position], FeatureCache(folder, "float16"), moved)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.bin")}

    nodes.add()
    with threads(1):
        here = entries("here")
        assert len(here) == 8 and all(any(content) for name, content in here.items() if name.endswith("features.bin"))
        # One connection, so that the processes of the nodes start once.
        with connected(nodes.address) as cluster, extracting_with(ClusterPass(cluster)):
            assert entries("two") == here
            assert entries("lost", losing(nodes, 500)) == here
            assert "1 node, 1 CPU" in cluster.description
            assert entries("one") == here


@contextmanager
def threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


class Watching(NullReporter):
    def __init__(self, moved: OnProgress) -> None:
        self._moved = moved

    def bar(self, title: str) -> OnProgress:
        return self._moved


@slow
@on_linux
def test_predictions_for_many_files_are_complete_and_in_order_after_a_node_is_lost(
    nodes: TwoNodes, two: Cluster, images: Path, trained: RunFolder, tmp_path: Path
) -> None:
    originals, folder = sorted(images.rglob("*.png")), tmp_path / "files"
    folder.mkdir()
    for number in range(FILES):
        os.link(originals[number % len(originals)], folder / f"{number:05d}.png")
    (folder / "02500.png").unlink()
    (folder / "02500.png").write_bytes(b"damaged")
    classifier, bundle = load(trained.path), trained.model

    def predicted(name: str, moved: OnProgress = ignore, cluster: Cluster | None = None) -> bytes:
        job = PredictJob((folder,), tmp_path / name, engine="pytorch-fp32")
        elsewhere = ClusterClassify(cluster, bundle, job) if cluster else None
        found = write_predictions(classifier, digest_of(bundle), job, tmp_path, Watching(moved), elsewhere)
        assert found == (FILES - 1, 1)
        return (tmp_path / name).read_bytes()

    there = predicted("there.csv", losing(nodes, 1_500), two)
    lines = there.decode().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(folder / f"{number:05d}.png") for number in range(FILES)]
    assert there == predicted("here.csv")


@slow
@on_linux
def test_images_on_remote_storage_are_classified_on_nodes_that_see_the_cache_and_named_by_their_address(
    nodes: TwoNodes, two: Cluster, images: Path, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    # The nodes were started with another cache folder.
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    address = f"file://{images}"
    job = PredictJob((mirrored(address),), tmp_path / "there.csv", engine="pytorch-fp32")
    elsewhere = ClusterClassify(two, trained.model, job)
    two.check(elsewhere.paths)
    classifier, bundle = load(trained.path), digest_of(trained.model)
    assert write_predictions(classifier, bundle, job, tmp_path, NullReporter(), elsewhere) == (36, 0)
    rows = (tmp_path / "there.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [f"file://{file}" for file in files_at([images])]
    here = PredictJob(job.inputs, tmp_path / "here.csv", engine="pytorch-fp32")
    write_predictions(classifier, bundle, here, tmp_path, NullReporter())
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


@slow
@on_linux
@pytest.mark.parametrize("whole", [False, True], ids=["heads", "whole runs"])
def test_cross_validation_gives_what_it_gives_here(
    nodes: TwoNodes, trained: RunFolder, tmp_path: Path, whole: bool
) -> None:
    nodes.add()
    run = Path(shutil.copytree(trained.path, tmp_path / "train-1"))

    def found(cluster: str | None) -> Any:
        shutil.rmtree(run / "folds", ignore_errors=True)
        return cross_validate(run, 2, 1 if whole else 2, whole, NullReporter(), cluster)

    with threads(1):
        assert found(nodes.address) == found(None)
    assert whole == (run / "folds" / "seed-0-fold-2" / "train-1" / "model").is_dir()


class Losing(NullReporter):
    """Loses the second node when so many trials have ended."""

    def __init__(self, nodes: TwoNodes, after: int) -> None:
        self._nodes, self._left = nodes, after

    def say(self, line: str) -> None:
        self._left -= "; took " in line
        if not self._left:
            self._nodes.lose()


@slow
@on_linux
def test_a_search_goes_on_when_a_node_is_lost_with_a_trial(nodes: TwoNodes, images: Path, tmp_path: Path) -> None:
    nodes.add()
    found = search(images, RECIPE, SPACE, tmp_path, Limits(None, 12), reporter=Losing(nodes, 5), cluster=nodes.address)
    names = [str(record.name) for record in found.trials]
    assert len(names) == len(set(names)) >= 12
    assert {record.level for record in found.trials if record.is_usable} == {"probe", "head", "short", "full"}
    assert SearchFolder(found.folder).recipe.is_file()


@slow
@on_linux
def test_a_run_whose_features_come_from_a_cluster_is_the_same_run(
    nodes: TwoNodes, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.add()
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

    there = outcome(trained_with("there", nodes.address))
    assert len(asked) >= 2
    assert there == outcome(trained_with("here", None))


@slow
@pytest.mark.ci
@on_linux
def test_what_is_wrong_on_a_node_is_one_sentence_that_names_it(
    one: Cluster, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match=r"^node \S+ \(127\.0\.0\.1, \w{8}\): does not see /nowhere; keep"):
        one.check([Path("/nowhere")])
    with pytest.raises(ClusterError, match=r"^node .*: does not see /nowhere"):
        list(one.starmap(len, [("text",)], sees=[Path("/nowhere")]))
    with pytest.raises(ClusterError, match=r"^node .*: .*manifest\.parquet: cannot be read as a manifest"):
        list(one.starmap(Manifest.read, [(tmp_path / "manifest.parquet",)]))
    assert list(one.starmap(len, [("ab",), ("",), ("abc",)])) == [2, 0, 3]
    monkeypatch.setattr(clusters, "NODES_WITHIN", 1.0)
    monkeypatch.setattr(clusters, "ANSWERS_WITHIN", 0.5)
    with pytest.raises(ClusterError, match="no node with 64 CPUs for 1 s"):
        list(one.starmap(len, [("text",)], Device(64)))
    monkeypatch.setattr(clusters, "__version__", "9.9")
    with pytest.raises(ClusterError, match=r"has Thaw .*, and the command runs 9\.9"):
        one.check([])


@slow
@on_linux
def test_the_command_line_predicts_on_a_cluster_of_this_machine_and_leaves_nothing_behind(
    images: Path, trained: RunFolder, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    home = tmp_path / "home"
    home.mkdir()
    before = set(Path("/tmp").glob("thaw-ray-*"))

    def predict(*more: str) -> str:
        words = [
            sys.executable,
            "-c",
            "from thaw.cli import main; main()",
            "predict",
            str(trained.path),
            "images",
            *more,
        ]
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(thaw.__file__).parents[1])}
        done = subprocess.run(words, cwd=images.parent, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    renamed = images.parent / "images"
    renamed.symlink_to(images)
    there = predict("--cluster", "local")
    renamed_rows = there.splitlines()
    assert len(renamed_rows) == 37 and renamed_rows[1].startswith("images/")
    assert there == predict()
    assert not list(home.iterdir()) and set(Path("/tmp").glob("thaw-ray-*")) == before


@pytest.mark.parametrize("address", ["here", "ray://host:10001", "host:port", "auto"])
def test_an_address_of_another_form_is_refused(
    address: str, trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "predict", trained.path, images, "--cluster", address) == 2
    assert f"--cluster {address}: write local, or HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("port", [0, 99999])
def test_a_port_that_cannot_be_is_refused(
    port: int, trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "predict", trained.path, images, "--cluster", f"127.0.0.1:{port}") == 2
    assert f"--cluster 127.0.0.1:{port}: there is no port {port}" in capsys.readouterr().err


def test_an_address_where_nothing_listens_is_one_sentence(
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    out = tmp_path / "table.csv"
    assert command(monkeypatch, "predict", trained.path, images, "--out", out, "--cluster", address) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"thaw: --cluster {address}: cannot be reached (")
    assert not list(tmp_path.iterdir())


@slow
@on_linux
def test_something_that_is_not_ray_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setattr(clusters, "ANSWERS_WITHIN", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no Ray cluster answers there within 4 s"), connected(address):
            pass


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(PackageError, match=r"--cluster needs ray: pip install 'thaw-vision\[ray\]'"),
        connected("local"),
    ):
        pass


def test_evaluate_on_a_cluster_needs_folds(
    trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "evaluate", trained.path, images, "--cluster", "local") == 2
    assert "--folds K" in capsys.readouterr().err
