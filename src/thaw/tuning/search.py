"""A search from its plan to its verdict: trial after trial, until nothing is left to gain or the time is up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from thaw import atomic
from thaw.device import threads_restored
from thaw.errors import TrainingError
from thaw.formats import command, count, duration
from thaw.metrics import METRICS
from thaw.recipe import Recipe
from thaw.reports.results import SPLIT_NAMES
from thaw.run_folder.trial_record import TrialName, TrialRecord
from thaw.tuning import page
from thaw.tuning.evaluate import evaluated
from thaw.tuning.final import PLAN, WINNER, refitted
from thaw.tuning.levels import FULL, HEAD, LEVELS, SHORT, Level
from thaw.tuning.recipes import AS_PLANNED, KNOWN, known_settings, settings_of_plan
from thaw.tuning.schedule import Outlook, Tried, best, is_exhausted, next_level, of_level, outlook, parent_of
from thaw.tuning.state import Search
from thaw.tuning.studies import Asked, quiet
from thaw.tuning.terminal import gain_text, refit_sentence, show_trial
from thaw.tuning.verdict import Verdict, judge, optimism, split_of_comparison
from thaw.tuning.workers import choosing, claimed, conducted

_PAGE_FACTOR = 10.0
"""How many times the time that the page took to write passes before it is written again."""

_POLL = 0.2
"""Seconds after which a process that waits for others looks again."""


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        folder: Everything about it, with the page.
        recipe: What to train with: the best trial's recipe, or the plan's where the best trial is not better.
        verdict: The comparison that this rests on.
        trials: All trials, in the order in which they ended.
        ended_because: Why no further trial was tried.
        refit: The run of the recipe on all images but those of test, with a bundle; `None` unless it was asked for.
    """

    folder: Path
    recipe: Recipe
    verdict: Verdict
    trials: tuple[TrialRecord, ...]
    ended_because: str
    refit: Path | None = None


def carry_on(search: Search, is_joined: bool = False) -> SearchResult | None:
    """Try until there is nothing left to gain or no time; then compare the best trial with the plan.

    With `is_joined` another process does the latter, and there is no result.
    """
    folder = search.folder
    # One that has its recipe has ended, and may only lack the refit.
    reason = folder.read_ended() if folder.recipe.is_file() else ""
    with threads_restored(), quiet(), nullcontext() if is_joined else conducted(folder, search.clock):
        while not reason:
            with ExitStack() as claims:
                found = _choose(search, claims, is_joined)
                if isinstance(found, str):
                    reason = found
                elif found is None:
                    time.sleep(_POLL)
                else:
                    _finish_trial(search, found)
        if is_joined:
            return None
        search.table.finish(search.records())
        _write_page(search, search.records())
        return _concluded(search, reason)


def _choose(search: Search, claims: ExitStack, is_joined: bool) -> Asked | str | None:
    """The next trial, which belongs to this process; why there is none; `None` to wait for another process.

    Once the process that conducts the search has said why it ends, others begin no trial, and it finishes what they
    leave.
    """
    with choosing(search.folder):
        ended = search.folder.read_ended()
        if ended and is_joined:
            return ended
        unfinished = [asked for study in search.studies.values() for asked in study.unfinished()]
        for asked in unfinished:
            if claimed(search.folder, asked.name, claims):
                return asked
        tried = search.tried()
        begun = ended or _reason_to_end(search, tried) or _begun(search, tried)
        if isinstance(begun, str) and (found := search.promising(tried)):
            begun = search.studies[FULL.name].ask(found.name)
        if isinstance(begun, Asked):
            return begun if claimed(search.folder, begun.name, claims) else None
        if begun is None or is_joined:
            return begun
        if not ended:
            search.folder.write_ended(begun)
        return None if unfinished else begun


def _begun(search: Search, tried: Tried) -> Asked | str | None:
    """A new trial: the plan at each level first, then the level that lags behind most; or why there is none."""
    studies, counts = search.studies, tried.counts
    lower: TrialName | None = None
    for level in LEVELS:
        if counts[level.name] == 0:
            return studies[level.name].enqueue("plan", _planned(search, level), lower, search.space)
        lower = TrialName(level.name, 0)
        if search.record(lower) is None:
            return None
    highest = METRICS[search.bench.monitor].highest
    units = {level.name: search.bench.val_units if level is FULL else search.units for level in LEVELS}
    outlooks = {level.name: outlook(level, tried.records, units[level.name], highest) for level in LEVELS}
    open_ = [name for name, found in outlooks.items() if found is None or not found.is_settled]
    chosen = next_level(tried, open_)
    if chosen is None:
        return "; ".join(_why_settled(tried, level, outlooks[level.name], search.bench.monitor) for level in LEVELS)
    if _usual_seconds(tried.records, chosen) > search.seconds_left(tried):
        return f"a {chosen.name} trial would take longer than the time that is left"
    return _next_of(search, tried, chosen)


def _next_of(search: Search, tried: Tried, level: Level) -> Asked:
    """The next trial of a level: what others recommend, the plan's phases on each new head, and what is sampled."""
    study, number = search.studies[level.name], tried.counts[level.name]
    if level is SHORT and number <= len(KNOWN) and search.space.of(SHORT):
        origin = list(KNOWN)[number - 1]
        given = {key: search.space.ranges[key] for key in search.file.given}
        settings = known_settings(origin, search.file.fixed, given, search.file.base)
        return study.enqueue(origin, settings, TrialName(HEAD.name, 0), search.space)
    parent = parent_of(level, tried, number, search.units)
    if level is SHORT and parent not in study.parents():
        return study.enqueue(AS_PLANNED, _planned(search, level), parent, search.space)
    return study.ask(parent)


def _planned(search: Search, level: Level) -> dict[str, Any]:
    """What the plan has for the settings of a level."""
    settings = settings_of_plan(search.planned)
    return {key: settings[key] for key in level.settings if key in settings}


def _usual_seconds(records: Sequence[TrialRecord], level: Level) -> float:
    """What a trial of a level takes: the median so far."""
    return median([record.seconds for record in of_level(records, level.name) if record.is_usable] or [0.0])


def _why_settled(tried: Tried, level: Level, found: Outlook | None, monitor: str) -> str:
    """Why no further trial of a level is tried."""
    if found and found.is_settled:
        gain, error = gain_text(found.gain, monitor), gain_text(found.standard_error, monitor)
        return f"{level.name}: ten more trials would gain {gain}, within the standard error of {error}"
    assert is_exhausted(level, tried)
    latest = of_level(tried.records, level.name)[-1:]
    if latest and latest[0].state == "failed":
        return f"{level.name}: trial after trial failed: {latest[0].reason}"
    return f"{level.name}: nothing new to try in the time that is left"


def _reason_to_end(search: Search, tried: Tried) -> str:
    """Why there is no time or no trial left, but for training the best short trial to its end; empty where there is."""
    limit, counts = search.file.trials, tried.counts
    if not counts[FULL.name]:
        return ""
    if limit is not None and sum(counts.values()) + (search.promising(tried) is not None) >= limit:
        return f"{count(limit, 'trial')} were asked for"
    if search.seconds_left(tried) <= 0:
        return f"the time of {duration(search.file.seconds or 0)} is used up"
    return ""


def _finish_trial(search: Search, asked: Asked) -> None:
    """Evaluate a trial, write what it measured, and show it."""
    record = search.record(asked.name)
    if search.page.is_behind and asked.name.level in (SHORT.name, FULL.name):
        # It would be behind for as long as stages train.
        _write_page(search, search.records())
    if record is None:
        before, started = _seconds_before(search, asked), time.perf_counter()
        record = evaluated(search, asked)
        record = replace(record, seconds=before + time.perf_counter() - started, ended=search.clock.elapsed)
        search.folder.write_record(record)
    search.studies[asked.name.level].tell(record)
    if record.level == FULL.name and record.parent and record.state != "skipped":
        # What was trained to its end is not resumed.
        shutil.rmtree(search.folder.trial(record.parent).checkpoints, ignore_errors=True)
    records = search.records()
    search.table.write(records)
    show_trial(record, best(records, record.level), search.clock, search.file.monitor, search.reporter)
    search.page.is_behind = True
    if time.perf_counter() >= search.page.due:
        _write_page(search, records)


def _seconds_before(search: Search, asked: Asked) -> float:
    """What the epochs took that a trial had trained when it was interrupted; 0 for one that begins now."""
    # One that trains to its end goes on where its parent did.
    parent = search.record(asked.parent) if asked.name.level == FULL.name else None
    folder = search.folder.trial(parent.name if parent else asked.name)
    if not folder.metrics.is_file():
        return 0.0
    return max(0.0, sum(epoch.seconds for epoch in folder.read_epochs()) - (parent.seconds if parent else 0.0))


def _write_page(search: Search, records: Sequence[TrialRecord], conclusion: page.Conclusion | None = None) -> None:
    started = time.perf_counter()
    content = page.content(search.folder, search.file, records, search.studies, conclusion, search.page.recipes)
    atomic.write_text(search.folder.page, page.render(content))
    now = time.perf_counter()
    search.page.is_behind, search.page.due = False, now + _PAGE_FACTOR * (now - started)


def _concluded(search: Search, reason: str) -> SearchResult:
    """Compare the best trial with the plan, and write the recipe to train with."""
    folder, records, reporter = search.folder, search.records(), search.reporter
    winner, loggers = search.planned, search.file.requested.loggers
    reporter.say(f"the search ends: {reason}")
    top, full = search.winner(records), of_level(records, FULL.name)
    if top is None:
        raise TrainingError(f"{folder.path}: no trial could be trained to its end; {folder.table} has the reasons")
    if top.origin == "plan":
        verdict = Verdict(False, "No trial is better than the plan by more than one standard error.")
    else:
        assert top.parent is not None
        winner = folder.trial(top.parent).read_recipe()
        manifest = search.bench.prepared.manifest
        images = f"{SPLIT_NAMES[split_of_comparison(manifest)]} images"
        reporter.say(f"training the best trial and the plan afresh, and comparing them on the {images}")
        luck = optimism(full, search.bench.val_units, search.planned.seed)
        verdict = judge(search.planned, winner, folder, manifest, luck)
        atomic.write_text(folder.winner, winner.model_copy(update={"loggers": loggers}).to_yaml())
    reporter.say(verdict.sentence)
    chosen, refit = winner if verdict.is_better else search.planned, None
    if search.file.refit:
        refit = refitted(chosen, WINNER if verdict.is_better else PLAN, search)
        reporter.say(refit_sentence(refit, folder, search.file.monitor))
    chosen = chosen.model_copy(update={"loggers": loggers})
    _write_page(search, records, page.Conclusion(verdict, reason, refit))
    # Last, because a search that has it has ended.
    atomic.write_text(folder.recipe, chosen.to_yaml())
    trains = command("thaw", "train", "DATA", "--recipe", folder.recipe)
    reporter.say(f"recipe {folder.recipe}: train with it by `{trains}`; page {folder.page}")
    return SearchResult(folder.path, chosen, verdict, tuple(records), reason, folder.refit.path if refit else None)
