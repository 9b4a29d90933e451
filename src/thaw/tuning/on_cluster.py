"""A search on a Ray cluster: each node takes trials until none is left, and this process shows them and concludes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

from thaw.cluster import Device, connected
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.device import choose_device, use_threads
from thaw.formats import count
from thaw.progress import NullReporter
from thaw.recipe.network_files import files_of
from thaw.run_folder.search_folder import SearchFolder
from thaw.run_folder.trial_record import TrialName
from thaw.tuning.begin import resume
from thaw.tuning.schedule import best
from thaw.tuning.search import SearchResult, carry_on
from thaw.tuning.state import Search
from thaw.tuning.terminal import show_trial
from thaw.tuning.workers import check_locks, conducted

_POLL = 1.0
"""Seconds after which a thread looks for trials that have ended."""


def search_on(search: Search, address: str) -> SearchResult:
    """Let the nodes of a cluster try until nothing is left, then compare the best trial with the plan.

    A node that is lost gives its trial back, and another one goes on with it from its checkpoint.

    Args:
        search: A search that was begun in a folder that all nodes see.
        address: HOST:PORT of the head of the cluster, or "local".

    Raises:
        ClusterError: The cluster cannot be used, a node does not see the folder, the images or the weights, or a trial
            fails there.
        WriteError: The folder is on a drive without file locks.
    """
    check_locks(search.folder)
    manifest = search.bench.prepared.manifest
    first = manifest.column("status").index("ok")
    # A folder whose storage is not mounted on a node is there too, and empty.
    networks = {**dict.fromkeys(search.space.values("backbone"), ""), **search.file.weights}
    sees = [search.folder.manifest.absolute(), manifest.file(first).absolute(), *files_of(networks)]
    with connected(address) as cluster:
        cluster.check(sees)
        search.reporter.say(cluster.description)
        search = _with_threads(search, min(search.planned.threads or cluster.threads, cluster.threads))
        on_accelerator = choose_device(search.planned.device).device.type != "cpu"
        device = Device(search.planned.threads or cluster.threads, int(on_accelerator))
        # At least one, so that a cluster without room for it is one sentence.
        places = max(1, cluster.places(device))
        pieces = [(str(search.folder.path.absolute()), search.file.storage)] * places
        with conducted(search.folder, search.clock), _shown(search):
            list(cluster.starmap(join_from_node, pieces, device, sees))
    use_threads(search.planned.threads)
    result = carry_on(search)
    assert result is not None
    return result


def join_from_node(folder: str, storage: str) -> int:
    """Run on a node: trials until none is left; gives how many the search has then."""
    place = SearchFolder(Path(folder))
    check_locks(place)
    search = resume(Dataset(Manifest.read(place.manifest)), place, place.read_file(), storage, NullReporter())
    carry_on(search, is_joined=True)
    return len(search.records())


def _with_threads(search: Search, threads: int) -> Search:
    """The same search where the plan, all trials and the comparison compute with so many threads."""
    if search.planned.threads == threads:
        return search
    search.reporter.say(f"computing with {count(threads, 'thread')}, as each node does")
    changed = {"threads": threads}
    planned, base = search.planned.model_copy(update=changed), search.file.base.model_copy(update=changed)
    file = replace(search.file, planned=planned, base=base)
    # Nodes read it.
    search.folder.write_file(file)
    return replace(search, file=file)


@contextmanager
def _shown(search: Search) -> Iterator[None]:
    """Within the block, show each trial that has ended.

    By a thread, because Ctrl+C ends what the main one does, which is to wait for nodes.
    """
    shown, is_over = {record.name for record in search.records()}, Event()

    def show() -> None:
        while not is_over.wait(_POLL):
            _show_new(search, shown)
        _show_new(search, shown)

    with ThreadPoolExecutor(max_workers=1) as executor:
        showing = executor.submit(show)
        try:
            yield
        finally:
            is_over.set()
        showing.result()


def _show_new(search: Search, shown: set[TrialName]) -> None:
    """Show the trials that have ended since, and add them to those that are shown.

    Clocks of nodes differ, so one that ended later may come before one that is shown.
    """
    records = search.records()
    for number, record in enumerate(records):
        if record.name not in shown:
            top = best(records[: number + 1], record.level)
            show_trial(record, top, search.clock, search.file.monitor, search.reporter)
            shown.add(record.name)
