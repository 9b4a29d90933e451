"""Connects this process to a Ray cluster, or starts one of this machine alone; what is wrong is one sentence."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from thaw.cluster.cluster import ANSWERS_WITHIN, Cluster
from thaw.cores import worker_count
from thaw.errors import ClusterError, PackageError, first_line

if TYPE_CHECKING:
    from types import ModuleType

LOCAL = "local"
"""The address for a cluster of this machine alone, which ends with the command."""

_LOCAL_OBJECTS = 1 << 30


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A cluster for as long as the block runs; this process then computes with as many threads as each piece.

    Args:
        address: `local` for this machine alone, on loopback; else HOST:PORT of the head of a cluster that this machine
            is a node of.

    Raises:
        PackageError: Ray is not installed.
        ClusterError: There is no cluster at the address, or it has another version of Ray; or this process is connected
            to Ray already.
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
            cluster = Cluster(address, threads, ray)
            least = min((node.cpus for node in cluster.nodes), default=threads)
            torch.set_num_threads(max(1, min(threads, least)))
            yield replace(cluster, threads=torch.get_num_threads())
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
    imported = sys.modules.get("ray")
    if imported and imported.is_initialized():
        # A process has one connection, and its end is the end of all that was computed with it.
        raise ClusterError(
            f"--cluster {address}: this process is connected to Ray already; call ray.shutdown() first, or use a "
            "process of its own"
        )
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
        raise PackageError(f'--cluster needs {error.name}: pip install "thaw-vision[ray]"') from error
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
