"""What to expect of images like those of training, and of images of parts, scenes or sessions never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thaw.formats import count, percent
from thaw.metrics import mean_interval
from thaw.selection.scores import mean_of


@dataclass(frozen=True)
class Folding:
    """One division of a sample into folds.

    Attributes:
        numbers: (N,) int, the fold of each image, -1 for none.
        groups: (N,) int, equal for images that are no independent evidence.
        grouping: Across what folds are divided, in words; empty for images like those of training.
        is_guess: Whether groups were guessed from what images look like; then they are one view of what may come, and
            random folds are another.
    """

    numbers: np.ndarray
    groups: np.ndarray
    grouping: str = ""
    is_guess: bool = False

    @property
    def described(self) -> str:
        """The folds, in words."""
        folds = count(int(self.numbers.max()) + 1, "fold")
        return f"{folds} across {self.grouping}" if self.grouping else folds


def deciding(foldings: Sequence[Folding], differ: bool) -> tuple[Folding, ...]:
    """The divisions that decide: the random one; where it is too optimistic the one across groups.

    Where the groups are a guess, both: a setting that is good across clusters of similar images only, or only within
    them, is a worse bet than one that is good in both.
    """
    if not differ:
        return (foldings[0],)
    return tuple(foldings) if foldings[-1].is_guess else (foldings[-1],)


@dataclass(frozen=True)
class Expected:
    """An accuracy 0..1 with its 95 % interval, and on how many images and groups it rests."""

    accuracy: float
    low: float
    high: float
    images: int
    groups: int

    @classmethod
    def of(cls, correct: np.ndarray, groups: np.ndarray) -> Expected:
        """The mean of `correct` (N,) with an interval by groups (N,)."""
        mean, number = mean_of(correct, groups), len(np.unique(groups))
        interval = mean_interval(mean.value, mean.standard_error, number, number)
        return cls(mean.value, *interval, len(correct), number)


@dataclass(frozen=True)
class Estimates:
    """Cross-validated accuracy of a linear head on frozen features.

    Attributes:
        similar: On images like those of training; near-duplicates are in one fold.
        across: On groups that training did not see; `None` where there are no groups.
        grouping: What the groups are, in words.
        differ: Whether the two differ by more than noise in the monitored metric, so that `across` decides.
    """

    similar: Expected
    across: Expected | None = None
    grouping: str = ""
    differ: bool = False

    @classmethod
    def of(
        cls, foldings: Sequence[Folding], correct: Sequence[np.ndarray], scores: Sequence[np.ndarray] | None = None
    ) -> Estimates:
        """From the folds of one or two divisions, the random one first.

        Args:
            foldings: The divisions.
            correct: Of each, whether each tested image was correct.
            scores: Of each, a score of each tested image, whose mean is the monitored metric; by default `correct`.
        """
        tested = [folding.groups[folding.numbers >= 0] for folding in foldings]
        expected = [Expected.of(values, groups) for values, groups in zip(correct, tested, strict=True)]
        if len(expected) == 1:
            return cls(expected[0])
        similar, across = expected
        monitored = zip(scores or correct, tested, strict=True)
        own, elsewhere = (Expected.of(values, groups) for values, groups in monitored)
        noise = float(np.hypot(own.high - own.low, elsewhere.high - elsewhere.low)) / 2
        return cls(similar, across, foldings[1].grouping, own.accuracy - elsewhere.accuracy > noise)

    def sentence(self) -> str:
        """Both, as one sentence."""
        own = f"{percent(self.similar.accuracy)} on images like these"
        if self.across is None:
            return f"{own}; nothing tells which images belong together, so other parts or scenes may do worse"
        return (
            f"{own}; {self.expected_elsewhere} expected on unseen {self.grouping} "
            f"({count(self.across.groups, 'group')})"
        )

    @property
    def expected_elsewhere(self) -> str:
        """The range to expect on groups that training did not see, such as "81% to 86%"; empty where it is unknown."""
        return f"{percent(self.across.low, 0)} to {percent(self.across.high, 0)}" if self.across else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for plan.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Estimates | None:
        """What `to_json` gave; `None` for a plan without estimates."""
        if not values:
            return None
        across = values["across"]
        return cls(
            Expected(**values["similar"]),
            Expected(**across) if across else None,
            values["grouping"],
            values["differ"],
        )
