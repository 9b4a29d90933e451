"""What a node of a cluster does: says what is wrong there, and computes pieces of work."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from thaw.cluster.shared_files import State, differing
from thaw.cores import use_cores
from thaw.errors import ThawError
from thaw.version import __version__


def problem_on_node(version: str, paths: Sequence[str]) -> str:
    """What is wrong here, in one sentence; empty if this version of Thaw and all paths are here."""
    if version != __version__:
        return f"{this_node()}: has Thaw {__version__}, and the command runs {version}; install the same everywhere"
    for path in paths:
        if not Path(path).exists():
            return (
                f"{this_node()}: does not see {path}; keep images, runs, your own weights and the cache (THAW_CACHE) "
                "on storage that all nodes see under the same path: whole runs are not sent to them"
            )
    return ""


def unseen_on_node(known: Mapping[str, State]) -> str:
    """A sentence on the first file that this node does not see with its size or state; empty if it sees all."""
    file = differing(known)
    return f"{this_node()}: does not see {file}" if file else ""


def this_node() -> str:
    """The node of this process, as the command names it."""
    import ray

    address = ray.util.get_node_ip_address()
    return f"node {socket.gethostname()} ({address}, {ray.get_runtime_context().get_node_id()[:8]})"


def run_on_node(
    version: str, paths: Sequence[str], threads: int, function: Callable[..., object], *values: object
) -> tuple[str, object]:
    """What is wrong here, in one sentence, or the result of a function that computes with so many threads."""
    if problem := problem_on_node(version, paths):
        return problem, None
    use_cores(threads)
    # Imported by the modules of functions that need it.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    try:
        return "", function(*values)
    except ThawError as error:
        return f"{this_node()}: {error}", None
