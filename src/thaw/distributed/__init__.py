"""Several processes that train one run, started by `torchrun` or Ray; the only package with torch.distributed."""

from __future__ import annotations

import os


def launched() -> bool:
    """Whether this process was started as one of several, by `torchrun` or with the same environment variables."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def launched_processes() -> int:
    """How many processes were started together; 1 for one that was started by itself."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1
