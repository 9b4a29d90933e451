"""A search in progress: what it began with, what its trials share, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from thaw.clock import Clock
from thaw.planning.time_limit import concluding_seconds_of
from thaw.progress import Reporter
from thaw.recipe import ResolvedRecipe
from thaw.run_folder.live_table import LiveTable
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.run_folder.trial_record import LevelName, TrialName, TrialRecord
from thaw.tuning.levels import FULL, LEVELS, SHORT, SHORT_FRACTION
from thaw.tuning.schedule import Tried, best, named, of_level, rank, winner
from thaw.tuning.space import Space
from thaw.tuning.studies import LevelStudy
from thaw.tuning.workbench import Workbench

_LONGEST = 1 / 3
"""Of the time that is left, the fraction that one short trial may take."""

_BEYOND = 0.1
"""Fraction of the limit by which the end may exceed it: time was kept for the best trial, which another one may have
used up by taking longer than expected."""


@dataclass
class PageState:
    """What is known of the page of a search that goes on.

    Attributes:
        recipes: Those of trials that are on it, as YAML.
        due: When it is to be written next, by `time.perf_counter`.
        is_behind: Whether a trial has ended since it was written.
    """

    recipes: dict[TrialName, str] = field(default_factory=dict)
    due: float = 0.0
    is_behind: bool = False


@dataclass(frozen=True)
class Search:
    """A search in progress."""

    folder: SearchFolder
    file: SearchFile
    space: Space
    bench: Workbench
    studies: Mapping[LevelName, LevelStudy]
    clock: Clock
    reporter: Reporter
    page: PageState = field(default_factory=PageState)
    _known: dict[TrialName, TrialRecord] = field(default_factory=dict)

    @cached_property
    def table(self) -> LiveTable[TrialRecord]:
        """The table of all trials."""
        return LiveTable(self.folder.table, self.folder.write_table, self.reporter)

    @property
    def planned(self) -> ResolvedRecipe:
        """The plan's recipe."""
        return self.file.planned

    def records(self) -> list[TrialRecord]:
        """All trials that have ended, of this process or another one; each file is read once."""
        found = self.folder.read_records(list(self._known.values()))
        self._known.update(named(found))
        return found

    def record(self, name: TrialName | None) -> TrialRecord | None:
        """What a trial measured, or `None` before it ended."""
        if name is not None and name not in self._known and (found := self.folder.read_record(name)):
            self._known[name] = found
        return self._known.get(name) if name is not None else None

    @property
    def units(self) -> np.ndarray:
        """(N,) int, equal for images of cross-validation that are no independent evidence."""
        return self.bench.sample.units[self.bench.tested]

    def tried(self) -> Tried:
        """What has been tried so far, by any process."""
        records, of_full = self.records(), self.studies[FULL.name]
        left = self.clock.left(-_BEYOND * (self.clock.limit or 0.0))
        # One that was skipped for lack of time can be trained to its end once there is more.
        ended = [
            record.parent
            for record in of_level(records, FULL.name)
            if record.parent and (record.state != "skipped" or record.predicted > left)
        ]
        going_on = [asked.parent for asked in of_full.unfinished() if asked.parent]
        found = Tried(
            records=records,
            counts={level.name: len(self.studies[level.name]) for level in LEVELS},
            sizes={level.name: self.space.size(level) for level in LEVELS},
            continued={*ended, *going_on},
        )
        for_short = self.clock.left(self._reserved(found, is_compared=True))
        return replace(found, longest={SHORT.name: _LONGEST * for_short, FULL.name: left})

    def promising(self, tried: Tried) -> TrialRecord | None:
        """The best short trial that nobody trains to its end, if it is better than all that were."""
        found, top = tried.unfinished_best(), best(tried.records, FULL.name)
        if found is None or top is None:
            return found
        by_name = named(tried.records)
        return found if rank(found, by_name) > rank(top, by_name) else None

    def seconds_of_plan(self, records: Sequence[TrialRecord]) -> float:
        """What training the plan to its end took; 0 before it has been."""
        full = of_level(records, FULL.name)
        return self._whole(full[0], records) if full else 0.0

    def seconds_to_end(self, short: TrialRecord) -> float:
        """Seconds that a short trial takes to its end, with the comparison that follows if it is better."""
        whole, plan = short.seconds + rest_of(short), self.seconds_of_plan(self.records())
        refit = max(plan, whole) * self._refit_images if self.file.refit else 0.0
        return rest_of(short) + plan + whole + refit + self._concluding

    @staticmethod
    def _whole(record: TrialRecord, records: Sequence[TrialRecord]) -> float:
        """Seconds of a trial that was trained to its end, with the short one that it goes on from."""
        parent = next((each for each in records if each.name == record.parent), None)
        return record.seconds + (parent.seconds if parent else 0.0)

    def winner(self, records: Sequence[TrialRecord]) -> TrialRecord | None:
        """The trial to go with, of those so far; `None` before one was trained to its end."""
        return winner(records, self.bench.val_units, self.units)

    def seconds_left(self, tried: Tried) -> float:
        """Seconds left, but for what the end takes: training the best trial on, it and the plan afresh, and a refit."""
        return self.clock.left(self._reserved(tried))

    def _reserved(self, tried: Tried, is_compared: bool = False) -> float:
        """What the end takes; with `is_compared` if a trial still to come is compared with the plan."""
        records = tried.records
        top, found = self.winner(records), self.promising(tried)
        if top is None:
            return 0.0
        if found:
            return self.seconds_to_end(found)
        plan, winner = self.seconds_of_plan(records), self._whole(top, records)
        reserved = self._concluding
        if top.origin != "plan":
            reserved += plan + winner
        elif self.file.refit or is_compared:
            reserved += plan
        if self.file.refit:
            reserved += max(plan, winner) * self._refit_images
        return reserved

    @property
    def _concluding(self) -> float:
        """Seconds for what no trial takes, such as the evaluation of the best one."""
        return concluding_seconds_of(self.bench.prepared.manifest)

    @property
    def _refit_images(self) -> float:
        """Images of training and validation for each one of training."""
        train, val = (len(self.bench.prepared.manifest.indices(split)) for split in ("train", "val"))
        return (train + val) / train


def rest_of(short: TrialRecord) -> float:
    """Seconds that a short trial will take from here to its end."""
    return short.seconds * (1 / SHORT_FRACTION - 1)
