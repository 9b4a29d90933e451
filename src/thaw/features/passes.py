"""What computes a pass of one view of images through the frozen part.

It can be replaced (`extracting_with`): by other processes or machines, each with a part of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch

from thaw.backbones.stages import AtCut
from thaw.features.cache import CachedFeatures
from thaw.features.encoding import CacheDtype
from thaw.features.engines import FrozenPart
from thaw.features.view_request import ViewRequest

BATCH = 64
"""Images that pass the frozen part at once."""

Pass = Callable[[ViewRequest, FrozenPart, Sequence[int], CacheDtype], Generator[Sequence[AtCut]]]
"""Computes what lies at some positions, ascending, for every row of a request of one view: batches in the order of the
rows, of any size, at least as precise as the dtype of the cache."""


def compute_pass(
    request: ViewRequest, frozen: FrozenPart, positions: Sequence[int], dtype: CacheDtype
) -> Generator[Sequence[AtCut]]:
    """A pass in this process: batches of `BATCH` rows.

    The same for a part of the rows that begins at a multiple of `BATCH`, bit for bit: no batch has other images.
    """
    runner = frozen.runner(positions)
    with closing(request.batches(BATCH, frozen.device)) as batches:
        for pixels in batches:
            yield runner.run(pixels)


@dataclass(frozen=True)
class PassFromMaps:
    """A `Pass` of the blocks between two cuts, from features at the lower one instead of pixels, in fp32.

    features: at the position `start`, of `rows` (N,).
    """

    features: CachedFeatures
    rows: np.ndarray
    start: int

    def __call__(
        self, request: ViewRequest, frozen: FrozenPart, positions: Sequence[int], dtype: CacheDtype
    ) -> Generator[Sequence[AtCut]]:
        """As `compute_pass`; the views are those of the features."""
        place_of, backbone = {row: place for place, row in enumerate(self.rows.tolist())}, frozen.backbone
        backbone.eval()
        for first in range(0, len(request.rows), BATCH):
            places = np.array([place_of[row] for row in request.rows[first : first + BATCH].tolist()])
            views = np.full(len(places), request.first_view)
            at, start, outputs = self.features.batch(places, views).to(frozen.device), self.start, list[AtCut]()
            with torch.no_grad():
                for position in positions:
                    at, start = backbone.advance(at, start, position), position
                    outputs.append(AtCut(*(part.cpu() for part in at)))
            yield outputs


_PASS: ContextVar[Pass] = ContextVar("pass", default=compute_pass)


@contextmanager
def extracting_with(compute: Pass) -> Iterator[None]:
    """Passes are computed by another function while the block runs."""
    token = _PASS.set(compute)
    try:
        yield
    finally:
        _PASS.reset(token)


def current_pass() -> Pass:
    """What computes passes now."""
    return _PASS.get()
