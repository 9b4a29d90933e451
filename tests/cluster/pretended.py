"""A cluster without Ray, on which nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from thaw.cluster import Cluster, Device


class Pretended(Cluster):
    """A cluster of nodes with so many CPUs each, which keeps what it is asked for."""

    asked: tuple[list[Sequence[object]], Device]
    checked: list[Path]

    @classmethod
    def of(cls, threads: int, cpus: Sequence[int]) -> Pretended:
        nodes = [{"Alive": True, "NodeID": str(at), "Resources": {"CPU": float(own)}} for at, own in enumerate(cpus)]
        return cls("head:6379", threads, SimpleNamespace(nodes=lambda: nodes))  # type: ignore[arg-type]

    def check(self, paths: Iterable[Path]) -> None:
        object.__setattr__(self, "checked", list(paths))

    def put(self, value: object) -> object:
        return value

    def starmap(  # type: ignore[override]
        self, function: Callable[..., Any], pieces: Iterable[Sequence[object]], device: Device, sees: Iterable[Path]
    ) -> Iterator[object]:
        object.__setattr__(self, "asked", (list(pieces), device))
        return iter(())
