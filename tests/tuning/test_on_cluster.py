"""A search on a cluster: the nodes take trials, also after one of them is lost with a trial."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cluster.two_nodes import TwoNodes
from tests.searches import RECIPE, SPACE
from thaw.errors import ClusterError
from thaw.pipeline import search
from thaw.progress import NullReporter
from thaw.run_folder.search_folder import SearchFolder
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
