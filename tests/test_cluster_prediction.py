"""`thaw predict --cluster` writes the table that it writes here, also where nodes do not see the images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import thaw
from tests.cluster.two_nodes import TwoNodes, Watching, ignore, losing
from thaw import cluster_prediction
from thaw.bundle import digest_of
from thaw.cluster import Cluster, Device
from thaw.cluster_prediction import ClusterClassify
from thaw.pipeline import load
from thaw.prediction.inputs import files_at
from thaw.prediction.job import PredictJob, write_predictions
from thaw.progress import NullReporter, OnProgress
from thaw.remote import mirrored
from thaw.run_folder import RunFolder

FILES = 5_000
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


@slow
@on_linux
def test_predictions_for_many_files_are_complete_and_in_order_after_a_node_is_lost(
    ray_nodes: TwoNodes, two_nodes: Cluster, images: Path, trained: RunFolder, tmp_path: Path
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
        elsewhere = ClusterClassify(cluster, bundle, classifier, job) if cluster else None
        found = write_predictions(classifier, digest_of(bundle), job, tmp_path, Watching(moved), elsewhere)
        assert found == (FILES - 1, 1)
        return (tmp_path / name).read_bytes()

    there = predicted("there.csv", losing(ray_nodes, 1_500), two_nodes)
    lines = there.decode().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(folder / f"{number:05d}.png") for number in range(FILES)]
    assert there == predicted("here.csv")


@pytest.fixture
def mixed(images: Path, tmp_path: Path) -> Path:
    """Small files, files that are larger than their pixels, and some that are no images."""
    folder, originals = tmp_path / "mixed", sorted(images.rglob("*.png"))
    folder.mkdir()
    for number in range(290):
        shutil.copyfile(originals[number % len(originals)], folder / f"{number:03d}.png")
    noise = np.random.default_rng(0).integers(0, 256, (200, 180, 3), np.uint8)
    Image.fromarray(noise).save(folder / "020.bmp")
    (folder / "040.png").write_bytes(b"damaged")
    (folder / "050.png").write_bytes(b"damaged and large" * 10_000)
    (folder / "060.png").write_bytes(b"")
    (folder / os.fsdecode(b"070-\xe9.png")).write_bytes(originals[0].read_bytes())
    return folder


class Blind:
    """Stands for a cluster, as far as `ClusterClassify` sees it, whose only node sees none of the files."""

    threads = 1

    def put(self, value: object) -> object:
        return value

    def unseen(self, sizes: Mapping[str, int]) -> str:
        return "node b: does not see them" if sizes else ""

    def starmap(self, function: Callable[..., Any], pieces: Iterable[Sequence[Any]], device: Device) -> Iterator[Any]:
        assert function is cluster_prediction.rows_of_contents
        for bundle, how, names, data, parts in pieces:
            elsewhere = [(f"/nowhere{file}", name) for file, name in names]
            yield function(bundle, how, elsewhere, data, parts)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_node_needs_neither_the_files_nor_the_bundle(
    trained: RunFolder, mixed: Path, tmp_path: Path, suffix: str
) -> None:
    classifier, digest = load(trained.path), digest_of(trained.model)
    written = []
    for name, cluster in (("here", None), ("there", cast(Cluster, Blind()))):
        job = PredictJob((mixed,), tmp_path / f"{name}.{suffix}", engine="pytorch-fp32", image_size=96)
        elsewhere = ClusterClassify(cluster, trained.model, classifier, job) if cluster else None
        assert write_predictions(classifier, digest, job, tmp_path, NullReporter(), elsewhere) == (288, 4)
        written.append((tmp_path / f"{name}.{suffix}").read_bytes())
    assert written[0] == written[1]


@slow
@on_linux
@pytest.mark.parametrize("measured", [True, False], ids=["all are sent", "what a node does not see is sent"])
def test_images_are_sent_to_nodes_that_do_not_see_them_and_the_table_is_the_same_after_one_is_lost(
    ray_nodes: TwoNodes,
    blind_node: Cluster,
    trained: RunFolder,
    mixed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: bool,
) -> None:
    monkeypatch.setattr(cluster_prediction, "BLOCK", 32)
    if not measured:
        monkeypatch.setattr(Cluster, "unseen", lambda cluster, sizes: "")
    classifier, bundle = load(trained.path), digest_of(trained.model)

    def predicted(name: str, watching: Watching, cluster: Cluster | None = None) -> bytes:
        job = PredictJob((mixed, mixed / "000.png"), tmp_path / name, engine="pytorch-fp32")
        elsewhere = ClusterClassify(cluster, trained.model, classifier, job, watching) if cluster else None
        assert write_predictions(classifier, bundle, job, tmp_path, watching, elsewhere) == (289, 4)
        return (tmp_path / name).read_bytes()

    here = predicted("here.csv", Watching())
    watching = Watching()
    assert predicted("there.csv", watching, blind_node) == here
    sent = [line for line in watching.said if "sent" in line]
    assert re.fullmatch(r"images are sent to the nodes through Ray: node \S+ \(.*\): does not see .*png", sent[0])
    assert re.fullmatch(r"sent \S+ [km]?B of images to the nodes", sent[1], re.IGNORECASE) and len(sent) == 2
    assert predicted("lost.csv", Watching(losing(ray_nodes, 60)), blind_node) == here


@slow
@on_linux
def test_images_on_remote_storage_are_classified_on_nodes_that_see_the_cache_and_named_by_their_address(
    ray_nodes: TwoNodes,
    two_nodes: Cluster,
    images: Path,
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    # The nodes were started with another cache folder.
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    address = f"file://{images}"
    job = PredictJob((mirrored(address),), tmp_path / "there.csv", engine="pytorch-fp32")
    classifier, bundle = load(trained.path), digest_of(trained.model)
    elsewhere = ClusterClassify(two_nodes, trained.model, classifier, job)
    assert write_predictions(classifier, bundle, job, tmp_path, NullReporter(), elsewhere) == (36, 0)
    rows = (tmp_path / "there.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [f"file://{file}" for file in files_at([images])]
    here = PredictJob(job.inputs, tmp_path / "here.csv", engine="pytorch-fp32")
    write_predictions(classifier, bundle, here, tmp_path, NullReporter())
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


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
