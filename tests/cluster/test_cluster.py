"""Nodes of a cluster compute pieces of work in order; what is wrong on one is one sentence that names it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.two_nodes import STORE
from thaw.cluster import Cluster, Device, sizes_of
from thaw.cluster import cluster as clusters
from thaw.data.manifest import Manifest
from thaw.errors import ClusterError
from thaw.run_folder import RunFolder

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


@slow
@pytest.mark.ci
@on_linux
def test_what_is_wrong_on_a_node_is_one_sentence_that_names_it(
    one_node: Cluster, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match=r"^node \S+ \(127\.0\.0\.1, \w{8}\): does not see /nowhere; keep"):
        one_node.check([Path("/nowhere")])
    with pytest.raises(ClusterError, match=r"^node .*: does not see /nowhere"):
        list(one_node.starmap(len, [("text",)], sees=[Path("/nowhere")]))
    with pytest.raises(ClusterError, match=r"^node .*: .*manifest\.parquet: cannot be read as a manifest"):
        list(one_node.starmap(Manifest.read, [(tmp_path / "manifest.parquet",)]))
    assert list(one_node.starmap(len, [("ab",), ("",), ("abc",)])) == [2, 0, 3]
    monkeypatch.setattr(clusters, "NODES_WITHIN", 1.0)
    monkeypatch.setattr(clusters, "ANSWERS_WITHIN", 0.5)
    with pytest.raises(ClusterError, match="no node with 64 CPUs for 1 s"):
        list(one_node.starmap(len, [("text",)], Device(64)))
    monkeypatch.setattr(clusters, "__version__", "9.9")
    with pytest.raises(ClusterError, match=r"has Thaw .*, and the command runs 9\.9"):
        one_node.check([])


@slow
@on_linux
def test_a_node_that_does_not_see_a_file_is_named_whether_its_folder_is_there_or_not(
    blind_node: Cluster, tmp_path: Path
) -> None:
    """The folder is there on the second node, and empty, as one whose storage is not mounted."""
    file = tmp_path / "image.png"
    file.write_bytes(b"content")
    assert not blind_node.unseen(sizes_of([Path(__file__)]))
    sentence = blind_node.unseen(sizes_of([Path(__file__), file]))
    assert re.fullmatch(rf"node \S+ \(127\.0\.0\.1, \w{{8}}\): does not see {file}", sentence)


@slow
@on_linux
def test_large_arrays_are_sent_a_few_at_a_time(one_node: Cluster) -> None:
    """Ray's memory of this machine has room for half of them."""
    sent = []

    def pieces() -> Iterator[tuple[np.ndarray]]:
        for number in range(8):
            sent.append(number)
            yield (np.full(STORE // 4, number, np.uint8),)

    for number, total in enumerate(one_node.starmap(np.max, pieces(), Device(1))):
        assert total == number and len(sent) <= number + 3
    assert len(sent) == 8
