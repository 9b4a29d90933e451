"""Images that are sent to nodes which do not see them: the user is told why, and how much it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from thaw.cluster.cluster import Cluster, Device
from thaw.formats import size
from thaw.progress import Reporter

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Arguments = tuple[object, ...]


@dataclass(frozen=True)
class Work(Generic[_Item, _Result]):
    """What nodes compute for each item, from files that they see or from what is sent to them.

    Attributes:
        samples: The sizes of files that every node must see, or else all items are sent.
        from_files: Run on a node: the result, or a sentence on a file of the item that this node does not see.
        with_paths: The arguments of `from_files` for an item.
        from_contents: Run on a node: the result from what is sent.
        with_contents: The arguments of `from_contents` for an item; their arrays are what is sent.
    """

    samples: Mapping[str, int]
    from_files: Callable[..., _Result | str]
    with_paths: Callable[[_Item], Arguments]
    from_contents: Callable[..., _Result]
    with_contents: Callable[[_Item], Arguments]


class Shipment:
    """Sends images through Ray where nodes do not see them, and tells the user why, and at the end how many bytes."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._is_said = False
        self._bytes = 0

    def results(
        self, cluster: Cluster, work: Work[_Item, _Result], items: Iterable[_Item], device: Device
    ) -> Generator[tuple[_Item, _Result]]:
        """Each item with its result, in their order; raises `ClusterError` as `Cluster.starmap` does."""
        given: deque[_Item] = deque()

        def pieces(arguments: Callable[[_Item], Arguments]) -> Iterator[Arguments]:
            for item in items:
                given.append(item)
                yield arguments(item)

        def sent(item: _Item) -> Arguments:
            arguments = work.with_contents(item)
            self.add(sum(each.nbytes for each in arguments if isinstance(each, np.ndarray)))
            return arguments

        found: Generator[_Result | str]
        if unseen := cluster.unseen(work.samples):
            self.begin(unseen)
            found = cluster.starmap(work.from_contents, pieces(sent), device)
        else:
            found = cluster.starmap(work.from_files, pieces(work.with_paths), device)
        with closing(found):
            for result in found:
                item = given.popleft()
                if isinstance(result, str):
                    self.begin(result)
                    (result,) = cluster.starmap(work.from_contents, [sent(item)], device)
                yield item, result

    def begin(self, reason: str) -> None:
        """Say why images are sent; only the first time."""
        if not self._is_said:
            self._is_said = True
            self._reporter.say(f"images are sent to the nodes through Ray: {reason}")

    def add(self, sent: int) -> None:
        """Count bytes that are sent."""
        self._bytes += sent

    def __enter__(self) -> Shipment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bytes:
            self._reporter.say(f"sent {size(self._bytes)} of images to the nodes")
