"""Several processes that train the same classifier together; each leaves its final weights and the training loss of
each epoch in FOLDER.

    python -m tests.training.fit_with_others COUNT FOLDER

They are forked, so that PyTorch is imported once.
"""

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from tests.training.test_fit import UNBLENDED, train
from thaw.processes import Process


def main(count: int, folder: Path) -> int:
    """Train in `count` processes; the exit code is that of the first one that failed, or 0."""
    torch.set_num_threads(1)
    children = [forked(rank, count, folder) for rank in range(count)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return next(filter(None, codes), 0)


def forked(rank: int, count: int, folder: Path) -> int:
    """Train in a child process; returns its id."""
    if child := os.fork():
        return child
    try:
        train_with_others(rank, count, folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def train_with_others(rank: int, count: int, folder: Path) -> None:
    """Train with the others, and save the weights of this process next to its checkpoints."""
    rendezvous, patience = f"file://{folder / 'rendezvous'}", timedelta(seconds=60)
    distributed.init_process_group("gloo", rendezvous, timeout=patience, rank=rank, world_size=count)
    process = Process(rank, count, distributed.barrier, summed)
    weights, progress = train(folder, UNBLENDED, dropout=0.0, process=process, wrap=DistributedDataParallel)
    distributed.destroy_process_group()
    torch.save(weights, folder / f"weights-{rank}.pt")
    (folder / f"losses-{rank}.json").write_text(json.dumps([record.train_loss for record in progress.records]))


def summed(value: Tensor) -> Tensor:
    distributed.all_reduce(value)
    return value


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
