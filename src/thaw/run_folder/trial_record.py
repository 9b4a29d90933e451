"""What one trial of a search measured, as its file has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

LevelName = Literal["probe", "head", "short", "full"]
State = Literal["complete", "pruned", "repeated", "skipped", "failed"]


@dataclass(frozen=True, order=True)
class TrialName:
    """A trial: the level, and its number in it, from 0."""

    level: LevelName
    number: int

    def __str__(self) -> str:
        return f"{self.level}-{self.number}"


@dataclass(frozen=True)
class TrialRecord:
    """What one trial measured.

    Attributes:
        level, number: Which trial it is.
        origin: Where its settings are from: plan, guide, fastai, autogluon, as planned (its phases), or sampled.
        settings: The settings in which it differs from what all trials share, by dotted key.
        state: complete; pruned: significantly worse than the best after some folds; repeated: the settings of an
            earlier trial, whose value it has; skipped: would have taken too long; failed.
        parent: The trial of the level below whose settings it goes on from.
        value: The monitored metric on images that it did not train on, higher being better; `None` without one.
        standard_error: Of the value.
        seconds: What it took.
        ended: Seconds of the search, without interruptions, at its end.
        latency_ms: Of one image through the frozen network; `None` where it was not measured.
        by_fold: Its value in each fold.
        scores: (N,) scores of the images whose mean is the value.
        without: The value without each block of validation images (`thaw.metrics.jackknife`), where it has no scores.
        reason: Why it was skipped, failed or pruned.
        predicted: Seconds that it would have taken, if it was skipped.
    """

    level: LevelName
    number: int
    origin: str
    settings: Mapping[str, Any]
    state: State
    parent: TrialName | None = None
    value: float | None = None
    standard_error: float | None = None
    seconds: float = 0.0
    ended: float = 0.0
    latency_ms: float | None = None
    by_fold: tuple[float, ...] = ()
    scores: tuple[float, ...] = field(default=(), repr=False)
    without: tuple[float, ...] = field(default=(), repr=False)
    reason: str = ""
    predicted: float = 0.0

    @property
    def name(self) -> TrialName:
        """Which trial it is."""
        return TrialName(self.level, self.number)

    @property
    def is_usable(self) -> bool:
        """Whether it was measured to its end."""
        return self.state == "complete" and self.value is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialRecord:
        """What `to_json` gave."""
        parent = TrialName(**values["parent"]) if values["parent"] else None
        lists = {name: tuple(values.get(name, ())) for name in ("by_fold", "scores", "without")}
        return cls(**{**values, **lists, "parent": parent})
