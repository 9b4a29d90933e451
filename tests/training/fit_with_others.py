"""One of several processes that train the same classifier together; each leaves its final weights in FOLDER and
prints the training loss of each epoch.

    python -m tests.training.fit_with_others RANK COUNT RENDEZVOUS FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from tests.training.test_fit import UNBLENDED, train
from thaw.processes import Process


def main(rank: str, count: str, rendezvous: str, folder: str) -> None:
    """Train with the others, and save the weights of this process next to its checkpoints."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=int(rank), world_size=int(count))
    process = Process(int(rank), int(count), distributed.barrier, summed)
    weights, progress = train(Path(folder), UNBLENDED, dropout=0.0, process=process, wrap=DistributedDataParallel)
    distributed.destroy_process_group()
    torch.save(weights, Path(folder) / f"weights-{rank}.pt")
    print(json.dumps([record.train_loss for record in progress.records]))


def summed(value: Tensor) -> Tensor:
    distributed.all_reduce(value)
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
