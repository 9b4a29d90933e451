"""One of several processes: what it exchanges with the others, and how it notices that one of them has ended.

Texts go through the key-value store that the processes meet at, where waiting has no limit as long as the others are
alive; tensors through gloo or NCCL, where all processes do comparable work and a time-out says that one hangs.
"""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import dataclass, field
from itertools import count as counted
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import DistStoreError
from torch.nn.parallel import DistributedDataParallel

from thaw.processes import Process

BEAT = 5.0
"""Seconds between two signs of life."""

PATIENCE = 120.0
"""Seconds without a sign of life after which a process that is waited for is taken to hang."""

COLLECTIVE_SECONDS = 600.0
"""Seconds after which an exchange of tensors is given up."""

_SHORTEST, _LONGEST = 0.001, 0.02
"""Seconds between two looks for what another process has to give."""

_FAILED, _ACKNOWLEDGED = "failed", "acknowledged"


class Failed(Exception):
    """Another process has failed with an error that it says itself."""


class Lost(Exception):
    """Another process has ended or hangs; the message says which."""


@dataclass(frozen=True)
class Member(Process):
    """A process that has joined the others; `store` is where they meet."""

    store: distributed.Store = field(kw_only=True)
    _numbers: Any = field(default_factory=counted)

    def gathered(self, text: str) -> list[str]:
        """The texts of all processes by rank."""
        number = next(self._numbers)
        keys = [f"text/{number}/{rank}" for rank in range(self.count)]
        self.store.set(keys[self.rank], text)
        signs = _Signs(self.store)
        for rank, key in enumerate(keys):
            pause = _SHORTEST
            while not self.store.check([key]):
                # Whoever failed may have given its text in between.
                if self.store.check([_FAILED]) and not self.store.check([key]):
                    raise Failed
                signs.check(rank)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
        return [value.decode() for value in self.store.multi_get(keys)]

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; overwrites it."""
        distributed.all_reduce(value)
        return value

    def broadcast(self, value: Tensor) -> None:
        """Overwrite a tensor with that of the main process."""
        sent = value.contiguous()
        distributed.broadcast(sent, src=0)
        if sent is not value:
            value.copy_(sent)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module in DistributedDataParallel."""
        # Buckets are arranged anew after the first step unless unused parameters are looked for. With three processes
        # or more, sums then have other bits in a run that resumes there.
        with warnings.catch_warnings():
            # The new name of `broadcast_buffers` is not in all supported releases of PyTorch.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def fail(self) -> bool:
        """Make all processes end; gives whether this is the first one that failed, which says why."""
        first = self.store.compare_set(_FAILED, "", str(self.rank))
        return first.decode() == str(self.rank)

    def acknowledge(self) -> None:
        """Say that this process ends because another one failed."""
        self.store.add(_ACKNOWLEDGED, 1)

    def wait_for_acknowledgements(self, seconds: float) -> None:
        """Wait until all others have said so, at most so long."""
        until = time.monotonic() + seconds
        while self.store.add(_ACKNOWLEDGED, 0) < self.count - 1 and time.monotonic() < until:
            time.sleep(0.05)

    def has_failed(self) -> bool:
        """Whether a process has failed with an error of the user."""
        return bool(self.store.check([_FAILED]))


class _Signs:
    """The signs of life of other processes, since one began to wait for them."""

    def __init__(self, store: distributed.Store) -> None:
        self._store = store
        self._seen: dict[int, tuple[bytes, float]] = {}

    def check(self, rank: int) -> None:
        """Raise `Lost` where a process has given no sign for too long."""
        key = _sign_of(rank)
        sign = self._store.get(key) if self._store.check([key]) else b""
        before, since = self._seen.get(rank, (None, 0.0))
        if sign != before:
            self._seen[rank] = sign, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise Lost(f"process {rank} has not answered for {PATIENCE:.0f} s")


def give_signs(store: distributed.Store, rank: int) -> threading.Event:
    """Give signs of life from a thread until the event that this returns is set."""
    # A connection of its own: the other one is taken while this process waits.
    own, over = store.clone(), threading.Event()

    def beat() -> None:
        for number in counted():
            try:
                own.set(_sign_of(rank), str(number))
            except (DistStoreError, RuntimeError):
                return
            if over.wait(BEAT):
                return

    threading.Thread(target=beat, daemon=True, name="signs of life").start()
    return over


def _sign_of(rank: int) -> str:
    return f"alive/{rank}"


def backend() -> str:
    """How tensors are exchanged: NCCL between NVIDIA GPUs, XCCL between those of Intel, gloo on the CPU."""
    if torch.xpu.is_available() and distributed.is_xccl_available():
        return "cpu:gloo,xpu:xccl"
    has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
