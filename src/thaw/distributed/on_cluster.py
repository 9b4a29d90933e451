"""`thaw train --cluster --processes`: starts the processes on a Ray cluster as `torchrun` does, and restarts them."""

from __future__ import annotations

import os
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from thaw.cache import cache_folder
from thaw.cluster import Cluster, Device, connected
from thaw.cluster.group import Place, group_on
from thaw.cores import CORES
from thaw.distributed.joining import USER_ERROR
from thaw.distributed.launch import RESTARTS as MOST_RESTARTS
from thaw.distributed.launcher import ENDED, LAUNCH, RESTARTS
from thaw.errors import ClusterError, RecipeError
from thaw.formats import count as counted

_STORAGE = ("HF_", "AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")
_PASSED_ON = ("THAW_", *_STORAGE, "MLFLOW_", "OMP_", "GLOO_", "NCCL_", "TORCH_")
"""How the variables begin that the processes have from the command, like those that torchrun starts."""


def start_on_cluster(address: str, wanted: str, device: str, words: Sequence[str], data: Path) -> int:
    """Run `thaw` with these words in several processes on a cluster; gives the exit code.

    Where a process or a node is lost, all are restarted, on what nodes there are then, and resume the run.

    Args:
        address: The cluster.
        wanted: The number of processes; `auto` is one for each GPU, or for each node without any.
        device: That of the recipe.
        words: The command line.
        data: The images, which all nodes must see if they are on this machine.

    Raises:
        RecipeError: The cluster has fewer GPUs than asked for.
        ClusterError: There is no cluster, it has too few CPUs, or a node has another version of Thaw or does not see a
            folder.
    """
    here = Path.cwd()
    paths = [path for path in {here, cache_folder().absolute(), data.absolute()} if path.exists()]
    name = uuid.uuid4().hex
    with connected(address) as cluster:
        cluster.check(paths)
        count, each = divided(cluster, wanted, device)
        print(
            f"{cluster.description}; {counted(count, 'process', 'processes')} with {each.description} each", flush=True
        )
        for restart in range(MOST_RESTARTS + 1):
            with group_on(cluster, count, each) as group:
                common = {**_passed_on(os.environ), LAUNCH: name, RESTARTS: str(restart), CORES: str(each.threads)}
                environments = [common | variables for variables in _of_each(group.places)]
                codes = group.run(words, environments, str(here), _write)
            if not any(code != 0 for code in codes):
                return 0
            if USER_ERROR in codes:
                return USER_ERROR
            rank, code = next((rank, code) for rank, code in enumerate(codes) if code != 0)
            ended = "was lost" if code is None else f"ended with exit code {code}"
            next_step = "all are restarted" if restart < MOST_RESTARTS else "resume with --resume"
            print(f"thaw: process {rank} {ended}; {next_step}", file=sys.stderr, flush=True)
    return ENDED


def divided(cluster: Cluster, wanted: str, device: str) -> tuple[int, Device]:
    """How many processes, and what each computes on, so that they use the nodes as a whole.

    Raises:
        RecipeError: The number is none, or there are fewer GPUs.
        ClusterError: There are fewer CPUs than processes.
    """
    cpus, gpus = [node.cpus for node in cluster.nodes], [node.gpus for node in cluster.nodes]
    uses_gpus = device != "cpu" and (device != "auto" or any(gpus))
    if wanted != "auto" and (not wanted.isdecimal() or int(wanted) < 1):
        raise RecipeError(f"--processes {wanted}: a number from 1 on, or auto for one process per GPU")
    count = int(wanted) if wanted != "auto" else (sum(gpus) if uses_gpus else len(cpus))
    if uses_gpus:
        if count > sum(gpus) or not count:
            found, remedy = (f"{sum(gpus)}", f"start {sum(gpus)}, or set") if any(gpus) else ("none", "set")
            needed = counted(max(1, count), "GPU")
            raise RecipeError(
                f"--processes {wanted}: needs {needed}, but cluster {cluster.address} has {found}; {remedy} device: cpu"
            )
        return count, Device(max(1, min(node.cpus // node.gpus for node in cluster.nodes if node.gpus)), 1)
    if count > sum(cpus):
        raise ClusterError(
            f"--processes {wanted}: needs {counted(count, 'CPU')}, but cluster {cluster.address} has {sum(cpus)}; "
            f"start {sum(cpus)}, or add nodes"
        )
    # The most for each at which all have room.
    return count, next(Device(each) for each in range(max(cpus), 0, -1) if sum(node // each for node in cpus) >= count)


def _of_each(places: Sequence[Place]) -> Iterable[dict[str, str]]:
    """The variables that differ between processes, and those by which they meet."""
    here, before = Counter(place.node for place in places), Counter[str]()
    for rank, place in enumerate(places):
        gpus = [gpu for other in places if other.node == place.node for gpu in other.gpus]
        yield {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(places)),
            "LOCAL_RANK": str(before[place.node]),
            "LOCAL_WORLD_SIZE": str(here[place.node]),
            "MASTER_ADDR": places[0].address,
            "MASTER_PORT": str(places[0].port),
            "THAW_CACHE": str(cache_folder().absolute()),
            # Each takes the one of its local rank, so all of a node must be seen by all there.
            **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}),
        }
        before[place.node] += 1


def _passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_PASSED_ON)}


def _write(is_error: bool, written: bytes) -> None:
    stream = sys.stderr if is_error else sys.stdout
    # Whoever reads it may have gone, as with `| head`.
    with suppress(BrokenPipeError):
        stream.buffer.write(written)
        stream.flush()
