"""Training in several processes that a Ray cluster starts: the same run as with torchrun, also when a node is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import thaw
from tests.cli.running import thaw as thaw_command
from tests.cluster.two_nodes import TwoNodes
from tests.distributed.several_processes import (
    assert_same_features,
    assert_same_run,
    command,
    environment,
    random_recipe_of,
    recipe_of,
    run,
    wait_for_an_epoch,
)
from thaw.cluster import Cluster, Device, Node
from thaw.cluster.group import Place
from thaw.distributed.on_cluster import _of_each, divided
from thaw.errors import ClusterError, RecipeError
from thaw.recipe import Recipe

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


def cluster_of(*given: tuple[int, int]) -> Cluster:
    """A cluster with so many CPUs and GPUs on each node."""
    return cast(Cluster, SimpleNamespace(address="head:6379", nodes=[Node(*node) for node in given]))


@pytest.mark.parametrize(
    ("nodes_of", "wanted", "device", "expected"),
    [
        ([(16, 0), (16, 0)], "auto", "auto", (2, Device(16))),
        ([(16, 0), (16, 0)], "4", "auto", (4, Device(8))),
        ([(16, 0), (8, 0)], "3", "cpu", (3, Device(8))),
        ([(1, 0), (1, 0)], "2", "cpu", (2, Device(1))),
        ([(16, 4), (16, 4)], "auto", "auto", (8, Device(4, 1))),
        ([(16, 4), (4, 0)], "2", "cuda", (2, Device(4, 1))),
        ([(16, 4)], "2", "cpu", (2, Device(8))),
    ],
)
def test_processes_divide_the_nodes_among_them(
    nodes_of: list[tuple[int, int]], wanted: str, device: str, expected: tuple[int, Device]
) -> None:
    assert divided(cluster_of(*nodes_of), wanted, device) == expected


@pytest.mark.parametrize(
    ("nodes_of", "wanted", "device", "message"),
    [
        (
            [(1, 0), (1, 0)],
            "3",
            "cpu",
            "--processes 3: needs 3 CPUs, but cluster head:6379 has 2; start 2, or add nodes",
        ),
        (
            [(8, 1), (8, 1)],
            "3",
            "auto",
            "--processes 3: needs 3 GPUs, but cluster head:6379 has 2; start 2, or set device",
        ),
        ([(8, 0)], "2", "cuda", "--processes 2: needs 2 GPUs, but cluster head:6379 has none; set device: cpu"),
        ([(8, 0)], "auto", "cuda", "--processes auto: needs 1 GPU, but cluster head:6379 has none"),
        ([(8, 0)], "none", "cpu", "--processes none: a number from 1 on"),
    ],
)
def test_fewer_cpus_or_gpus_than_asked_are_one_sentence(
    nodes_of: list[tuple[int, int]], wanted: str, device: str, message: str
) -> None:
    with pytest.raises((RecipeError, ClusterError), match=message):
        divided(cluster_of(*nodes_of), wanted, device)


def test_each_process_has_the_variables_of_torchrun_and_sees_the_gpus_of_its_node() -> None:
    places = [
        Place("a", "10.0.0.1", 5000, ("0",)),
        Place("a", "10.0.0.1", 5001, ("2",)),
        Place("b", "10.0.0.2", 1, ("0",)),
    ]
    found = [{name: value for name, value in each.items() if name != "THAW_CACHE"} for each in _of_each(places)]
    same = {"WORLD_SIZE": "3", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"}
    assert found == [
        {**same, "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "0,2"},
        {**same, "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "0,2"},
        {**same, "RANK": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "CUDA_VISIBLE_DEVICES": "0"},
    ]


def test_torchrun_and_a_cluster_do_not_both_start_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("thaw.cli.training.launched", lambda: True)
    monkeypatch.setattr("thaw.cli.training.launched_processes", lambda: 2)
    assert thaw_command(monkeypatch, "train", "images", "--processes", "2", "--cluster", "local") == 2
    assert "--cluster local: starts processes, as torchrun has done; omit one" in capsys.readouterr().err


@pytest.fixture
def two(ray_nodes: TwoNodes) -> Iterator[TwoNodes]:
    ray_nodes.add()
    yield ray_nodes
    ray_nodes.lose()


def variables(place: Path) -> dict[str, str]:
    return {**environment(place), "PYTHONPATH": os.pathsep.join([str(Path(thaw.__file__).parents[1])])}


def trained_on(address: str, images: Path, recipe: Recipe, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (place / "here").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        command(images, recipe, place, "--cluster", address, *more),
        cwd=place / "here",
        env=variables(place),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@slow
@pytest.mark.ci
@on_linux
def test_two_processes_on_two_nodes_end_with_the_weights_of_two_here(
    two: TwoNodes, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = recipe_of(quick)
    there = trained_on(two.address, images, recipe, tmp_path / "there")
    assert there.returncode == 0, there.stderr
    assert there.stdout.count("Phases") == 1 and "2 nodes, 2 CPUs; 2 processes with 1 CPU each" in there.stdout
    assert not there.stderr
    here = run(images, recipe, tmp_path / "here")
    assert here.returncode == 0, here.stderr
    assert_same_run(tmp_path / "there", tmp_path / "here")
    assert_same_features(tmp_path / "here", tmp_path / "there")


@slow
@on_linux
def test_a_run_of_which_a_node_is_lost_is_restarted_and_ends_with_the_same_weights(
    two: TwoNodes, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = random_recipe_of(quick)
    undisturbed = run(images, recipe, tmp_path / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    place = tmp_path / "lost"
    words = command(images, recipe, place, "--cluster", two.address)
    with subprocess.Popen(words, cwd=place, env=variables(place), stdout=-1, stderr=-1, text=True) as process:
        wait_for_an_epoch(place, process)
        two.lose()
        two.add()
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "was lost; all are restarted" in err or "ended with exit code 1; all are restarted" in err
    assert out.count("resuming") == 1
    assert_same_run(place, tmp_path / "undisturbed")


@slow
@on_linux
def test_bad_input_is_one_sentence_and_leaves_nothing(
    two: TwoNodes, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    cases: list[tuple[str, Recipe, list[str], Path, str]] = [
        ("many", quick, ["--processes", "3"], images, "--processes 3: needs 3 CPUs, but cluster"),
        ("gpus", quick, ["--device", "cuda"], images, "--processes 2: needs 2 GPUs, but cluster"),
        ("data", quick, [], tmp_path / "nowhere", "nowhere: no such folder"),
    ]
    for name, recipe, more, data, sentence in cases:
        done = trained_on(two.address, data, recipe, tmp_path / name, *more)
        assert done.returncode == 2, (name, done)
        (line,) = done.stderr.splitlines()
        assert line.startswith("thaw: ") and sentence in line
        assert not (tmp_path / name / "runs").exists()
