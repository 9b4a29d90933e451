"""Several processes that train the same classifier together; each leaves its final weights and the training loss of
each epoch in FOLDER.

    python -m tests.training.fit_with_others COUNT FOLDER

They are forked, so that PyTorch is imported once.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path

import torch

from tests.training.test_fit import UNBLENDED, train
from thaw.distributed.joining import joined


def main(count: int, folder: Path) -> int:
    """Train in `count` processes; the exit code is that of the first one that failed, or 0."""
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    os.environ["LOCAL_WORLD_SIZE"] = str(count)
    children = [forked(rank, folder) for rank in range(count)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return next(filter(None, codes), 0)


def forked(rank: int, folder: Path) -> int:
    """Train in a child process; returns its id."""
    if child := os.fork():
        return child
    os.environ["RANK"] = str(rank)
    try:
        train_with_others(rank, folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def train_with_others(rank: int, folder: Path) -> None:
    """Train with the others, and save the weights of this process next to its checkpoints."""
    with joined() as process:
        weights, progress = train(folder, UNBLENDED, dropout=0.0, process=process)
    torch.save(weights, folder / f"weights-{rank}.pt")
    (folder / f"losses-{rank}.json").write_text(json.dumps([record.train_loss for record in progress.records]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
