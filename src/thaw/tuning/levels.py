"""The levels of a search, from cheap to expensive, and the settings that each of them varies.

A trial of a level goes on from a good one of the level below, so that expensive trials vary only what cheap ones cannot
tell: successive halving (Jamieson and Talwalkar 2016) whose rungs differ in what is computed, not only in how long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thaw.run_folder.trial_record import LevelName

SHORT_FRACTION = 1 / 3
"""Fraction of the epochs of thawed stages after which trials are compared for the first time."""


@dataclass(frozen=True)
class Level:
    """One level.

    Attributes:
        name: Its name.
        settings: Keys of the settings that it varies.
        per_round: How many of its trials there are for each one of the most expensive level.
        enough: Trials from which the level may end because little is left to gain.
        measures: What a trial of it measures, in words.
    """

    name: LevelName
    settings: tuple[str, ...]
    per_round: int
    enough: int
    measures: str


PROBE = Level(
    "probe",
    ("backbone", "preprocessing.image_size", "head.features", "phases.0.augment", "class_weights"),
    8,
    10,
    "a linear head on the features of a sample, cross-validated on training images",
)
HEAD = Level(
    "head",
    ("head.hidden", "head.dropout", "phases.0.mixup", "phases.0.label_smoothing", "views"),
    4,
    8,
    "the head as it would be trained, cross-validated on training images",
)
SHORT = Level(
    "short",
    (
        "phases.1.cut",
        "phases.1.lr",
        "phases.1.layer_decay",
        "phases.1.epochs",
        "phases.1.augment",
        "phases.1.mixup",
        "phases.1.label_smoothing",
    ),
    3,
    8,
    "thawed stages after a third of their epochs, on validation images",
)
FULL = Level("full", (), 1, 4, "thawed stages after all of their epochs, on validation images")

LEVELS = (PROBE, HEAD, SHORT, FULL)
"""From cheap to expensive."""

BELOW = {HEAD.name: PROBE, SHORT.name: HEAD, FULL.name: SHORT}
"""The level whose good trials a level goes on from."""
