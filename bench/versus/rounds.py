"""How long Thaw takes to the accuracy at which a peer ends: arithmetic over the curves of one set. No packages needed.

Each round compares the runs of one seed. A round in which Thaw never reaches the accuracy takes for ever, and so has
ratio 0: in medians it is the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.versus.curve import Point, seconds_to

THAW = "thaw_planned"

Curves = Mapping[str, Mapping[int, Sequence[Point]]]
"""The curve of each peer and seed."""


@dataclass(frozen=True)
class Round:
    """The curves of a peer and of Thaw with the same seed; the last point of each is the finished run."""

    peer: Sequence[Point]
    thaw: Sequence[Point]

    @property
    def reached(self) -> float:
        """Seconds after which Thaw is as accurate as the peer at its end; infinity for never."""
        return seconds_to(self.thaw, self.peer[-1][1])

    @property
    def ratio(self) -> float:
        """Total time of the peer divided by `reached`; 0 for never."""
        return self.peer[-1][0] / self.reached

    @property
    def ratio_of_runs(self) -> float:
        """Total time of the peer divided by that of Thaw, whatever their accuracy."""
        return self.peer[-1][0] / self.thaw[-1][0]


def curves_of(records: Sequence[dict]) -> Curves:
    """The curves of one set; of a run that was repeated, the last one."""
    curves: dict[str, dict[int, Sequence[Point]]] = {}
    for record in records:
        if "failure" not in record:
            points = [(seconds, accuracy) for seconds, accuracy in record["curve"]]
            curves.setdefault(record["peer"], {})[record["seed"]] = points
    return curves


def rounds_of(curves: Curves, peer: str) -> list[Round]:
    """The rounds that both Thaw and a peer have run."""
    thaw = curves.get(THAW, {})
    return [Round(points, thaw[seed]) for seed, points in curves[peer].items() if seed in thaw]


def fastest(curves: Curves) -> str | None:
    """The peer with the shortest total time, of those that share a round with Thaw; `None` if there is none."""
    rounds = {peer: rounds_of(curves, peer) for peer in curves if peer != THAW}
    times = {peer: median(one.peer[-1][0] for one in found) for peer, found in rounds.items() if found}
    return min(times, key=lambda peer: times[peer], default=None)
