"""Work that is many independent pieces, on a Ray cluster.

Ray schedules the pieces, repeats those whose node is lost, and lets nodes join and leave. A piece is a function of the
installed Thaw, named by its module, and plain values: paths, numbers, text, bytes and arrays.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from thaw.cores import use_cores, worker_count
from thaw.errors import ClusterError, PackageError, ThawError, first_line
from thaw.formats import count
from thaw.version import __version__

if TYPE_CHECKING:
    from types import ModuleType

LOCAL = "local"
"""The address for a cluster of this machine alone, which ends with the command."""

RETRIES = 5
"""How often Ray repeats a piece whose node or process was lost."""

ANSWERS_WITHIN = 20.0
"""Seconds in which a cluster must answer."""

NODES_WITHIN = 300.0
"""Seconds in which a node that has room for a piece must be there: an autoscaler takes minutes to start one."""

_LOCAL_OBJECTS = 1 << 30
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
        cpus = _cpus_of_nodes(self.ray)
        return f"cluster {self.address}: {count(len(cpus), 'node')}, {count(int(sum(cpus)), 'CPU')}"

    def check(self, paths: Iterable[Path]) -> None:
        """Raise `ClusterError` unless every node has this version of Thaw and sees these files and folders."""
        from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, TaskUnschedulableError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        check = self.ray.remote(_checked)
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
        call = self.ray.remote(_run).options(
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
        return _nodes(self.ray)

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


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A cluster for as long as the block runs; this process then computes with as many threads as each piece.

    Args:
        address: `local` for this machine alone, on loopback; else HOST:PORT of the head of a cluster that this machine
            is a node of.

    Raises:
        PackageError: Ray is not installed.
        ClusterError: There is no cluster at the address, or it has another version of Ray.
    """
    import torch

    check_address(address)
    ray = _imported(address)
    # Ray installs a handler of its own.
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if is_main else None
    threads = torch.get_num_threads()
    with TemporaryDirectory(prefix="thaw-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            _join(ray, address, folder)
            if is_main:
                signal.signal(signal.SIGTERM, handler)
            least = min((int(cpus) for cpus in _cpus_of_nodes(ray)), default=threads)
            torch.set_num_threads(max(1, min(threads, least)))
            yield Cluster(address, torch.get_num_threads(), ray)
        finally:
            torch.set_num_threads(threads)
            ray.shutdown()


def check_address(address: str) -> None:
    """Raise `ClusterError` unless something listens at an address: Ray itself would wait for minutes."""
    if address == LOCAL:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ClusterError(f"--cluster {address}: write {LOCAL}, or HOST:PORT of the head of a Ray cluster")
    if not 0 < int(port) < 1 << 16:
        raise ClusterError(f"--cluster {address}: there is no port {port}; a head listens on 6379 by default")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN / 4).close()
    except OSError as error:
        raise ClusterError(
            f"--cluster {address}: cannot be reached ({first_line(error)}); is the head running?"
        ) from error


def _imported(address: str) -> ModuleType:
    """Ray, which reports no use; on loopback it does not look for an address that others know."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Tasks without a GPU see no GPU; the default will be to see all of them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    if _is_loopback(address):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address == LOCAL and "RAY_AUTH_MODE" not in os.environ:
        # Other users of this machine cannot join; Ray would keep its token in the home folder.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
    except ModuleNotFoundError as error:
        raise PackageError(f"--cluster needs {error.name}: pip install 'thaw-vision[ray]'") from error
    return ray


def _is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    return address == LOCAL or host in ("localhost", "::1") or host.startswith("127.")


def _join(ray: ModuleType, address: str, folder: str) -> None:
    """Connect to a cluster, or start that of this machine with its files in a folder."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if address == LOCAL:
        ray.init(
            "local",
            num_cpus=worker_count(),
            include_dashboard=False,
            object_store_memory=_LOCAL_OBJECTS,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            **quiet,
        )
        return
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check", "--address", address]
    try:
        answered = subprocess.run(check, capture_output=True, timeout=ANSWERS_WITHIN, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        raise ClusterError(f"--cluster {address}: no Ray cluster answers there within {ANSWERS_WITHIN:.0f} s")
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ClusterError(
            f"--cluster {address}: cannot be joined ({reason}); run the command on a node of the cluster, with its Ray"
        ) from error


def _nodes(ray: ModuleType) -> list[dict[str, Any]]:
    """The nodes that run pieces: a head often has no CPUs for them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _cpus_of_nodes(ray: ModuleType) -> list[float]:
    return [node["Resources"]["CPU"] for node in _nodes(ray)]


def _name(node: dict[str, Any]) -> str:
    """A node as users know it."""
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _checked(version: str, paths: Sequence[str]) -> str:
    """Run on a node: what is wrong there, in one sentence; empty if nothing is."""
    import ray

    place = partial(_here, ray)
    if version != __version__:
        return f"{place()}: has Thaw {__version__}, and the command runs {version}; install the same everywhere"
    for path in paths:
        if not Path(path).exists():
            return (
                f"{place()}: does not see {path}; keep images, runs and the cache (THAW_CACHE) on storage that all "
                "nodes see under the same path"
            )
    return ""


def _here(ray: ModuleType) -> str:
    """The node of this process, as `_name` writes it."""
    address = ray.util.get_node_ip_address()
    return f"node {socket.gethostname()} ({address}, {ray.get_runtime_context().get_node_id()[:8]})"


def _run(
    version: str, paths: Sequence[str], threads: int, function: Callable[..., object], *values: object
) -> tuple[str, object]:
    """Run on a node: what is wrong there, in one sentence, or the result of a function."""
    import ray
    import torch

    if problem := _checked(version, paths):
        return problem, None
    use_cores(threads)
    torch.set_num_threads(threads)
    try:
        return "", function(*values)
    except ThawError as error:
        return f"{_here(ray)}: {error}", None
