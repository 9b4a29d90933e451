"""`thaw train --processes`: starts the processes on this machine as `torchrun` does, and restarts them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from thaw.cores import worker_count
from thaw.distributed.joining import USER_ERROR
from thaw.distributed.launcher import ENDED
from thaw.errors import RecipeError

RESTARTS = 3


def process_count(wanted: str) -> int:
    """The number of processes that `--processes` names; `auto` is one for each GPU, and one without any.

    Raises:
        RecipeError: It is no number of processes.
    """
    if wanted == "auto":
        return max(1, torch.accelerator.device_count())
    if not wanted.isdecimal() or int(wanted) < 1:
        raise RecipeError(f"--processes {wanted}: a number from 1 on, or auto for one process per GPU")
    return int(wanted)


def start(count: int, words: Sequence[str]) -> int:
    """Run `thaw` in several processes with these words; gives the exit code.

    Where one is killed, all are restarted and resume the run.
    """
    # What torchrun says of each restart is for people who write programs for it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, worker_count() // count)))
    with tempfile.TemporaryDirectory(prefix="thaw-processes-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=RESTARTS,
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "thaw", *words)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            if USER_ERROR in codes.values():
                return USER_ERROR
            rank, code = next(iter(codes.items()))
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            print(f"thaw: process {rank} {ended}, after {RESTARTS} restarts; resume with --resume", file=sys.stderr)
            return ENDED
        except SignalException as error:
            return 128 + int(error.sigval)
    return 0
