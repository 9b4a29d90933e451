"""A Ray cluster that this process is connected to: asks its nodes what they have, and gives them pieces of work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from thaw.cluster.on_node import problem_on_node, run_on_node
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
        from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, TaskUnschedulableError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        check = self.ray.remote(problem_on_node)
        asked = []
        for node in self._nodes():
            this_one = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            there = check.options(num_cpus=0, max_retries=0, scheduling_strategy=this_one)
            asked.append((_name(node), there.remote(__version__, sorted(map(str, paths)))))
        for name, reference in asked:
            try:
                problem = self.ray.get(reference, timeout=NODES_WITHIN)
            except GetTimeoutError as error:
                raise ClusterError(f"{name}: does not answer for {NODES_WITHIN:.0f} s; remove it") from error
            except (NodeDiedError, TaskUnschedulableError):
                # Lost, which Ray notices after seconds.
                continue
            except RayError as error:
                raise self._explained(error, name) from error
            if problem:
                raise ClusterError(problem)

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
            pieces: The arguments of each call, which are plain values or what `put` gave.
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
        submitted = (call.remote(__version__, paths, device.threads, function, *piece) for piece in pieces)
        waiting: deque[Any] = deque()
        try:
            while True:
                most = max(1, self.places(device) * _WAITING_PER_PLACE)
                waiting.extend(islice(submitted, max(0, most - len(waiting))))
                if not waiting:
                    return
                problem, result = self._result(waiting.popleft(), device)
                if problem:
                    raise ClusterError(problem)
                yield result
        finally:
            for reference in waiting:
                self.ray.cancel(reference)

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
                f"pip install 'thaw-vision[ray]=={__version__}'"
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
