"""Processes that run at the same time on the nodes of a Ray cluster: all of them or none.

Ray Train would start them too, but it brings pandas and a controller of its own, joins the processes by itself, and
knows neither the exit codes nor the store of Thaw. A placement group and one actor for each process are all it takes.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from selectors import EVENT_READ, DefaultSelector
from subprocess import PIPE, Popen
from typing import Any

from thaw.cluster.cluster import NODES_WITHIN, Cluster, Device
from thaw.errors import ClusterError, first_line
from thaw.formats import count as counted

ENDING_SECONDS = 20.0
"""Seconds in which the others must end after one process has failed or was lost."""

_SILENT_SECONDS = 1.0
_CHUNK = 1 << 16

Write = Callable[[bool, bytes], None]
"""Takes what a process wrote: whether to standard error, and the bytes."""


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    node: its identifier. address: of its node. port: a free one there. gpus: those of its node that are its own.
    """

    node: str
    address: str
    port: int
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Places for processes, those of one node next to each other, and the workers of Ray there."""

    places: Sequence[Place]
    _workers: Sequence[Any]
    _ray: Any

    def run(
        self, words: Sequence[str], environments: Sequence[Mapping[str, str]], folder: str, write: Write
    ) -> list[int | None]:
        """Run `thaw` at every place at the same time.

        Args:
            words: The command line, the same everywhere.
            environments: Variables of each process, in addition to those of its node.
            folder: The current folder of the processes.
            write: Takes what they write.

        Returns:
            The exit code of each process; `None` where the process or its node was lost, or it had to be ended because
            another one failed.
        """
        from ray.exceptions import RayError

        streams = [
            worker.run.options(num_returns="streaming").remote(list(words), dict(environment), folder)
            for worker, environment in zip(self._workers, environments, strict=True)
        ]
        codes: dict[int, int | None] = {}
        until = float("inf")
        while len(codes) < len(streams) and time.monotonic() < until:
            running = [stream for rank, stream in enumerate(streams) if rank not in codes]
            ready, _ = self._ray.wait(running, timeout=_SILENT_SECONDS, fetch_local=False)
            for stream in ready:
                rank = next(rank for rank, other in enumerate(streams) if other is stream)
                try:
                    code, is_error, written = self._ray.get(next(stream))
                except (RayError, StopIteration):
                    codes[rank] = None
                    continue
                if code is None:
                    write(is_error, written)
                else:
                    codes[rank] = code
            if any(code != 0 for code in codes.values()):
                until = min(until, time.monotonic() + ENDING_SECONDS)
        return [codes.get(rank) for rank in range(len(streams))]


@contextmanager
def group_on(cluster: Cluster, count: int, device: Device) -> Iterator[Group]:
    """Places for processes on a cluster, taken at once; whatever runs there ends with the block.

    Args:
        cluster: The cluster.
        count: How many processes.
        device: What each computes on.

    Raises:
        ClusterError: There is no room for all of them, or a node is lost.
    """
    from ray.exceptions import RayError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    ray = cluster.ray
    each = {"CPU": float(device.threads), **({"GPU": float(device.gpus)} if device.gpus else {})}
    room = placement_group([each] * count, strategy="PACK")
    workers: list[Any] = []
    try:
        if not room.wait(NODES_WITHIN):
            raise ClusterError(
                f"cluster {cluster.address}: no room for {counted(count, 'process', 'processes')} with "
                f"{device.description} each for {NODES_WITHIN:.0f} s; add nodes, or start fewer"
            )
        there = PlacementGroupSchedulingStrategy(room)
        worker = ray.remote(Worker).options(
            num_cpus=device.threads, num_gpus=device.gpus, max_restarts=0, scheduling_strategy=there
        )
        workers += (worker.remote() for _ in range(count))
        try:
            places = ray.get([worker.place.remote() for worker in workers], timeout=NODES_WITHIN)
        except RayError as error:
            raise ClusterError(f"cluster {cluster.address}: lost a process as it began: {first_line(error)}") from error
        order = sorted(range(count), key=lambda rank: (places[rank].node, places[rank].gpus, rank))
        yield Group([places[rank] for rank in order], [workers[rank] for rank in order], ray)
    finally:
        for each_worker in workers:
            with suppress(RayError):
                ray.kill(each_worker)
        remove_placement_group(room)


class Worker:
    """Run on a node: an actor that starts one process, which ends when the actor does."""

    def place(self) -> Place:
        """Where this is."""
        import ray

        context = ray.get_runtime_context()
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        return Place(context.get_node_id(), ray.util.get_node_ip_address(), port, gpus)

    def run(
        self, words: list[str], environment: dict[str, str], folder: str
    ) -> Iterator[tuple[int | None, bool, bytes]]:
        """Run `thaw`; what it writes as (None, whether to standard error, bytes), and at the end its exit code."""
        # Output that is kept back would be lost with the process.
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        command = [sys.executable, "-P", "-m", "thaw", *words]
        with (
            # The process ends when nobody holds the other end of its standard input any more.
            Popen(command, cwd=folder, env=variables, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process,
            DefaultSelector() as streams,
        ):
            for is_error, stream in enumerate((process.stdout, process.stderr)):
                assert stream is not None
                streams.register(stream, EVENT_READ, bool(is_error))
            while streams.get_map():
                ready = streams.select(_SILENT_SECONDS)
                for key, _ in ready:
                    if written := os.read(key.fd, _CHUNK):
                        yield None, key.data, written
                    else:
                        streams.unregister(key.fileobj)
                # Processes that it left behind may hold the streams open.
                if not ready and process.poll() is not None:
                    break
            yield process.wait(), False, b""
