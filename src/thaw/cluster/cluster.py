"""A Ray cluster that this process is connected to: asks its nodes what they have, and gives them pieces of work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from thaw.cluster.on_node import problem_on_node, run_on_node, unseen_on_node
from thaw.errors import ClusterError, first_line
from thaw.formats import count
from thaw.version import __version__

if TYPE_CHECKING:
    from types import ModuleType

RETRIES = 5
"""How often Ray repeats a piece whose node or process was lost."""

ANSWERS_WITHIN = 20.0
"""Seconds in which a cluster must answer."""

NODES_WITHIN = 300.0
"""Seconds in which a node that has room for a piece must be there: an autoscaler takes minutes to start one."""

_WAITING_PER_PLACE = 2
"""Pieces that are submitted for each one that can run at once: no node waits for the next, an autoscaler sees that more
is to be done, and the results that wait for an earlier one stay few."""

LARGE = 100_000
"""Bytes from which an array is put into Ray's memory; a smaller one travels with the call."""

MOST_SENT = 1 << 30
"""Bytes of arrays on their way to the nodes at once: seconds of a fast network."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Device:
    """What one piece computes on.

    threads: CPUs that it asks for, and threads that it computes with. gpus: GPUs that it asks for.
    """

    threads: int
    gpus: int = 0

    @property
    def description(self) -> str:
        """As `4 CPUs and 1 GPU`."""
        return count(self.threads, "CPU") + (f" and {count(self.gpus, 'GPU')}" if self.gpus else "")


@dataclass(frozen=True)
class Node:
    """What a node has for pieces of work."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class _Submitted:
    """A piece that is on its way: what stands for its result, its arguments, and the bytes of its arrays."""

    reference: Any
    arguments: Sequence[object]
    sent: int


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    address: as the user gave it. threads: for each piece, unless it asks for another number.
    """

    address: str
    threads: int
    ray: ModuleType = field(repr=False, compare=False)

    @property
    def description(self) -> str:
        """The cluster in words, for the user."""
        cpus = [node.cpus for node in self.nodes]
        return f"cluster {self.address}: {count(len(cpus), 'node')}, {count(sum(cpus), 'CPU')}"

    def check(self, paths: Iterable[Path]) -> None:
        """Raise `ClusterError` unless every node has this version of Thaw and sees these files and folders."""
        for problem in self._ask_all(problem_on_node, __version__, sorted(map(str, paths))):
            if problem:
                raise ClusterError(problem)

    def unseen(self, sizes: Mapping[str, int]) -> str:
        """One sentence on a node that does not see files with these sizes; empty if every node sees all of them.

        Sizes, because a folder whose storage is not mounted on a node is there too, and empty.
        """
        return next(filter(None, self._ask_all(unseen_on_node, dict(sizes))), "")

    def _ask_all(self, question: Callable[..., str], *values: object) -> Iterator[str]:
        """What every node answers to a question, without those that are lost meanwhile."""
        from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, TaskUnschedulableError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self.ray.remote(question)
        asked = []
        for node in self._nodes():
            this_one = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            there = ask.options(num_cpus=0, max_retries=0, scheduling_strategy=this_one)
            asked.append((_name(node), there.remote(*values)))
        for name, reference in asked:
            try:
                yield self.ray.get(reference, timeout=NODES_WITHIN)
            except GetTimeoutError as error:
                raise ClusterError(f"{name}: does not answer for {NODES_WITHIN:.0f} s; remove it") from error
            except (NodeDiedError, TaskUnschedulableError):
                # Lost, which Ray notices after seconds.
                continue
            except RayError as error:
                raise self._explained(error, name) from error

    def put(self, value: object) -> Any:
        """Give every node a value that many pieces take; what it gives stands for the value in their arguments."""
        return self.ray.put(value)

    def starmap(
        self,
        function: Callable[..., _Result],
        pieces: Iterable[Sequence[object]],
        device: Device | None = None,
        sees: Iterable[Path] = (),
    ) -> Generator[_Result]:
        """The results of a function for many arguments, in their order, as `itertools.starmap`.

        Args:
            function: A function of a module of Thaw, whose result does not depend on where it runs.
            pieces: The arguments of each call, which are plain values, arrays or what `put` gave. Pieces are taken as
                there is room for their arrays: for half of Ray's memory on this machine, and at most `MOST_SENT`.
            device: What each call computes on; by default `threads` CPUs.
            sees: Files and folders that a node must see.

        Raises:
            ClusterError: A call fails on its node with a `ThawError`, which is named with the node, or is lost more
                than `RETRIES` times, or no node has room for it.
        """
        device, paths = device or Device(self.threads), sorted(map(str, sees))
        call = self.ray.remote(run_on_node).options(
            num_cpus=device.threads, num_gpus=device.gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        remaining, room = iter(pieces), self._room()
        waiting: deque[_Submitted] = deque()
        try:
            while True:
                most = max(1, self.places(device) * _WAITING_PER_PLACE)
                while len(waiting) < most and (not waiting or sum(piece.sent for piece in waiting) < room):
                    if (piece := next(remaining, None)) is None:
                        break
                    waiting.append(
                        self._submitted(partial(call.remote, __version__, paths, device.threads, function), piece)
                    )
                if not waiting:
                    return
                first = waiting.popleft()
                problem, result = self._result(first.reference, device)
                if problem:
                    raise ClusterError(problem)
                yield result
        finally:
            for each in waiting:
                self.ray.cancel(each.reference)

    def _submitted(self, call: Callable[..., Any], piece: Sequence[object]) -> _Submitted:
        """A piece with its large arrays put, which stay until its result is here: Ray could not repeat it without."""
        arguments, sent = list(piece), 0
        for index, value in enumerate(piece):
            if isinstance(value, np.ndarray) and value.nbytes > LARGE:
                arguments[index] = self.put(value)
                sent += value.nbytes
        return _Submitted(call(*arguments), arguments, sent)

    def _room(self) -> int:
        """Bytes of arrays that may be on their way at once."""
        here = self.ray.get_runtime_context().get_node_id()
        stores = (
            int(node["Resources"].get("object_store_memory", 0)) for node in self.ray.nodes() if node["NodeID"] == here
        )
        return min(MOST_SENT, next(stores, MOST_SENT) // 2)

    def _result(self, reference: Any, device: Device) -> tuple[str, Any]:
        """The outcome of one piece, when it is there."""
        from ray.exceptions import RayError

        since = time.monotonic()
        while not self.ray.wait([reference], timeout=ANSWERS_WITHIN)[0]:
            if self.places(device):
                since = time.monotonic()
            elif time.monotonic() - since > NODES_WITHIN:
                raise ClusterError(
                    f"cluster {self.address}: no node with {device.description} for {NODES_WITHIN:.0f} s; add nodes, "
                    "or compute with fewer threads"
                )
        try:
            return self.ray.get(reference)
        except RayError as error:
            raise self._explained(error, "a node") from error

    def _explained(self, error: Exception, place: str) -> Exception:
        """An error of Ray's as one sentence; an error in a function of Thaw stays what it is."""
        from ray.exceptions import RayTaskError

        text = str(error)
        if "No module named 'thaw" in text or "Can't get attribute" in text:
            return ClusterError(
                f"{place} of cluster {self.address}: has no Thaw {__version__}; install it on every node: "
                f'pip install "thaw-vision[ray]=={__version__}"'
            )
        if isinstance(error, RayTaskError):
            return error
        return ClusterError(
            f"cluster {self.address}: {place} lost a piece of the work {RETRIES + 1} times: {first_line(error)}"
        )

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that run pieces: a head often has no CPUs for them."""
        return [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are there now."""
        found = (node["Resources"] for node in self._nodes())
        return [Node(int(resources["CPU"]), int(resources.get("GPU", 0))) for resources in found]

    def places(self, device: Device) -> int:
        """How many pieces can run at once, if nothing else does."""
        return sum(
            min(node.cpus // device.threads, node.gpus // device.gpus if device.gpus else node.cpus)
            for node in self.nodes
        )


def _name(node: dict[str, Any]) -> str:
    """A node as users know it."""
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
