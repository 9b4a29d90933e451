"""A search on a cluster: the nodes take trials, also after one of them is lost with a trial."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.pretended import Pretended
from tests.cluster.two_nodes import TwoNodes
from tests.interrupting import heard
from tests.reporters import Listening
from tests.searches import RECIPE, SPACE
from thaw.backbones import build
from thaw.backbones.weights import write_file
from thaw.cluster import Cluster, Device
from thaw.data.dataset import Dataset
from thaw.device import threads_restored
from thaw.errors import ClusterError
from thaw.pipeline import search
from thaw.pipeline.tuning import continue_search
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder.search_folder import SearchFolder
from thaw.tuning import on_cluster
from thaw.tuning.begin import Wanted, begin
from thaw.tuning.limits import Limits

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


class Losing(NullReporter):
    """Loses the second node when so many trials have ended."""

    def __init__(self, ray_nodes: TwoNodes, after: int) -> None:
        self._nodes, self._left = ray_nodes, after
        self.shown: list[str] = []

    def say(self, line: str) -> None:
        if "; took " in line:
            self._left -= 1
            self.shown.append(line.split(" (")[0].split(":")[0])
        if not self._left:
            self._nodes.lose()


@slow
@on_linux
def test_a_search_goes_on_when_a_node_is_lost_with_a_trial(ray_nodes: TwoNodes, images: Path, tmp_path: Path) -> None:
    ray_nodes.add()
    reporter = Losing(ray_nodes, 5)
    found = search(images, RECIPE, SPACE, tmp_path, Limits(None, 12), reporter=reporter, cluster=ray_nodes.address)
    names = [str(record.name) for record in found.trials]
    assert len(names) == len(set(names)) >= 12
    assert sorted(reporter.shown) == sorted(names)
    assert {record.level for record in found.trials if record.is_usable} == {"probe", "head", "short", "full"}
    assert SearchFolder(found.folder).recipe.is_file()


@slow
@on_linux
def test_trials_need_images_that_all_nodes_see(second_is_blind: TwoNodes, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"^node .*: does not see .*; keep .*: whole runs are not sent to them$"):
        search(
            images, RECIPE, SPACE, tmp_path, Limits(None, 12), reporter=NullReporter(), cluster=second_is_blind.address
        )


def searched_on(
    cluster: Cluster, images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe = RECIPE
) -> Listening:
    """What is said by a search that was begun with two threads, and whose nodes are those of a cluster."""

    @contextmanager
    def connected(address: str) -> Iterator[Cluster]:
        yield cluster

    reporter = Listening()
    monkeypatch.setattr(on_cluster, "connected", connected)
    monkeypatch.setattr(on_cluster, "carry_on", lambda search: "concluded")
    with threads_restored():
        wanted = Wanted(recipe.model_copy(update={"threads": 2}), SPACE, [], Limits(None, 4))
        begun = begin(Dataset.open(images), wanted, runs, reporter)
        assert on_cluster.search_on(begun, cluster.address) == "concluded"
    return reporter


def test_nodes_with_fewer_cpus_than_the_command_has_threads_take_trials(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Pretended.of(1, [1, 1, 1])
    reporter = searched_on(cluster, images, tmp_path, monkeypatch)
    pieces, device = cluster.asked
    assert len(pieces) == 3 and device == Device(1)
    assert "computing with 1 thread, as each node does" in reporter.said
    file = SearchFolder(tmp_path / "search-1").read_file()
    assert file.planned.threads == file.base.threads == 1
    # A search that was interrupted goes on there.
    del cluster.asked
    assert continue_search(images, tmp_path / "search-1", reporter=reporter, cluster="local") == "concluded"
    assert len(cluster.asked[0]) == 3


def test_nodes_must_see_weights_of_the_users(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial with weights that a node lacks would fail there, and its network be left out."""
    monkeypatch.chdir(tmp_path)
    own, other = Path("own.safetensors"), Path("other") / "other.safetensors"
    other.parent.mkdir()
    (other.parent / "config.json").write_text("{}")
    write_file(build(RECIPE), own)
    write_file(build(RECIPE.model_copy(update={"backbone": "mobilenetv3_small_075"})), other)
    candidates = {RECIPE.backbone: str(own), "mobilenetv3_small_075": str(other)}
    recipe = RECIPE.model_copy(update={"weights": str(own), "candidates": candidates})
    cluster = Pretended.of(1, [1])
    searched_on(cluster, images, tmp_path, monkeypatch, recipe)
    needed = {tmp_path / own, tmp_path / other, tmp_path / "other" / "config.json"}
    assert needed <= set(cluster.checked)
    assert set(SearchFolder(tmp_path / "search-1").read_file().weights.values()) == {
        str(tmp_path / own),
        str(tmp_path / other),
    }


def test_a_cluster_without_room_for_a_trial_is_asked_all_the_same(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it says that no node has room, or an autoscaler starts one."""
    cluster = Pretended.of(2, [1])
    searched_on(cluster, images, tmp_path, monkeypatch)
    assert len(cluster.asked[0]) == 1


def test_ctrl_c_ends_a_search_whose_nodes_are_at_work(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Pretended):
        def starmap(self, *_: object) -> Iterator[object]:  # type: ignore[override]
            signal.raise_signal(signal.SIGINT)
            time.sleep(15)
            yield 1

    started = time.perf_counter()
    with heard(), pytest.raises(KeyboardInterrupt):
        searched_on(Interrupted.of(1, [1]), images, tmp_path, monkeypatch)
    assert time.perf_counter() - started < 15
