"""A Ray cluster of two nodes of this machine; the second may be lost, or may not see a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import thaw
from thaw.cluster import Cluster, connected
from thaw.progress import NullReporter, OnProgress

STORE = 100 << 20
SECONDS = 60.0
_ELSEWHERE = ("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
"""Runs a command with mounts and processes of its own, as on another machine; all of them end with it."""


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
        """The second node is there, and sees what the head does."""
        if isinstance(self._second, subprocess.Popen):
            self.lose()
        if self._second is None:
            self._wait_for(1)
            self._second = self._cluster.add_node(**self._node)
        self._wait_for(2)

    def add_without(self, folder: Path) -> None:
        """The second node is there, where an empty file system is mounted over a folder."""
        self.lose()
        self._wait_for(1)
        hidden = 'mount -t tmpfs none "$1" && shift && exec "$@"'
        node = [sys.executable, str(Path(__file__).with_name("another_node.py")), self.address, str(STORE)]
        words = [*_ELSEWHERE, "sh", "-c", hidden, "sh", str(folder), *node]
        self._second = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._wait_for(2)

    def lose(self) -> None:
        """The second node is gone at once, as if its machine had lost its power."""
        if self._second is None:
            return
        node, self._second = self._second, None
        if isinstance(node, subprocess.Popen):
            node.kill()
            node.communicate()
        else:
            self._cluster.remove_node(node, allow_graceful=False)

    def _wait_for(self, nodes: int) -> None:
        """Ray takes seconds to notice that a node is there, or is lost."""
        until = time.monotonic() + SECONDS
        while sum(node["Alive"] for node in self._cluster.global_state.node_table()) != nodes:
            is_running = not isinstance(self._second, subprocess.Popen) or self._second.poll() is None
            assert is_running and time.monotonic() < until, f"there are not {nodes} nodes"
            time.sleep(0.1)

    def close(self) -> None:
        self.lose()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray reads it when it is first imported, and otherwise replaces 127.0.0.1 by an address that others know.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # An earlier test may have started a cluster of this machine, whose token its nodes would ask for.
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.delenv(name, raising=False)
        pytest.importorskip("ray", reason="needs the extra ray")
        # The nodes run the code that is tested.
        paths = [str(Path(thaw.__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        started = TwoNodes()
        try:
            yield started
        finally:
            started.close()


@pytest.fixture
def one_node(ray_nodes: TwoNodes) -> Iterator[Cluster]:
    with connected(ray_nodes.address) as cluster:
        yield cluster


@pytest.fixture
def two_nodes(ray_nodes: TwoNodes) -> Iterator[Cluster]:
    ray_nodes.add()
    with connected(ray_nodes.address) as cluster:
        assert "2 nodes, 2 CPUs" in cluster.description
        yield cluster
    ray_nodes.lose()


@pytest.fixture
def second_is_blind(ray_nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    """Two nodes, of which the second sees no file of any test: neither images nor runs nor caches."""
    if subprocess.run([*_ELSEWHERE, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to mount in a namespace of its own")
    ray_nodes.add_without(tmp_path_factory.getbasetemp())
    yield ray_nodes
    ray_nodes.lose()


@pytest.fixture
def blind_node(second_is_blind: TwoNodes) -> Iterator[Cluster]:
    with connected(second_is_blind.address) as cluster:
        assert "2 nodes, 2 CPUs" in cluster.description
        yield cluster


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


class Watching(NullReporter):
    """Keeps what is said, and passes progress on."""

    def __init__(self, moved: OnProgress = ignore) -> None:
        self._moved = moved
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def bar(self, title: str) -> OnProgress:
        return self._moved


@contextmanager
def threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)
