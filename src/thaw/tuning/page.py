"""`search.html`: the answer, how it came about, and the recipe of each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from thaw.evaluation.evaluate import Evaluation
from thaw.formats import command, count, duration, percent
from thaw.html.environment import environment
from thaw.metrics import METRICS
from thaw.recipe.ranges import Range, Searched
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.run_folder.trial_record import LevelName, TrialName, TrialRecord
from thaw.tuning import charts
from thaw.tuning.levels import LEVELS, Level
from thaw.tuning.recipes import recipe_of, settings_of_plan
from thaw.tuning.schedule import best, of_level
from thaw.tuning.studies import LevelStudy
from thaw.tuning.terminal import gain_text, outcome, refit_sentence
from thaw.tuning.verdict import Verdict

_LEAST = 4
"""Trials of a level below which there is nothing to draw."""

_SHOWN = 10
"""Trials of a level whose rows are shown at once, the best ones."""


@dataclass(frozen=True)
class Row:
    """A trial in the table: what its level varies, or what differs from the plan; the outcome; its recipe as YAML."""

    name: str
    origin: str
    parent: str
    settings: str
    outcome: str
    seconds: str
    recipe: str
    is_best: bool


@dataclass(frozen=True)
class LevelPart:
    """One level on the page: what it measures, importances of its settings, its best trials, and all others."""

    name: LevelName
    colour: str
    measures: str
    trials: int
    median_seconds: str
    importances: Markup
    parallel: Markup
    rows: tuple[Row, ...]
    more_rows: tuple[Row, ...]


@dataclass(frozen=True)
class Conclusion:
    """How a search ended: what it found, why it ended, and the evaluation of the refit, where that was asked for."""

    verdict: Verdict
    reason: str
    refit: Evaluation | None = None


@dataclass(frozen=True)
class SearchPage:
    """Everything on the page.

    Attributes:
        title: Name of the search.
        is_running: Whether it is still going on; the page then loads itself again.
        answer: What was found, in one sentence.
        facts: What else there is to say, in sentences.
        history: Values against time.
        latency: Values against the latency of the frozen network; empty where all trials have the same.
        levels: One part for each level that has trials, the most expensive first.
    """

    title: str
    is_running: bool
    answer: str
    facts: tuple[str, ...]
    history: Markup
    latency: Markup
    levels: tuple[LevelPart, ...]


def render(content: SearchPage) -> str:
    """The page as one self-contained HTML file."""
    return environment().get_template("search.html").render(page=content)


def _so_far(folder: SearchFolder, records: Sequence[TrialRecord]) -> str:
    """What goes on while there is no answer."""
    trials = count(len(records), "trial")
    if folder.read_ended():
        return f"{trials} tried; the best one is compared with the plan."
    return f"Searching: {trials} so far."


def content(
    folder: SearchFolder,
    file: SearchFile,
    records: Sequence[TrialRecord],
    studies: Mapping[LevelName, LevelStudy],
    conclusion: Conclusion | None = None,
    recipes: dict[TrialName, str] | None = None,
) -> SearchPage:
    """What the page says.

    Args:
        folder: Of the search.
        file: What it began with.
        records: All trials that have ended.
        studies: The studies, for the importances.
        conclusion: How it ended; `None` while it goes on.
        recipes: Those of trials as YAML, to which missing ones are added.
    """
    monitor, recipes = file.monitor, {} if recipes is None else recipes
    dots = [dot for level in LEVELS for dot in _dots(of_level(records, level.name), monitor)]
    return SearchPage(
        title=folder.path.name,
        is_running=conclusion is None,
        answer=conclusion.verdict.sentence if conclusion else _so_far(folder, records),
        facts=tuple(_facts(records, conclusion, folder, monitor)),
        history=Markup(charts.plane(dots, "time of the search", _y_text(monitor), duration)),
        latency=_latency_chart(records, monitor),
        levels=tuple(
            _level_part(level, records, studies[level.name], file, recipes)
            for level in reversed(LEVELS)
            if of_level(records, level.name)
        ),
    )


def _facts(
    records: Sequence[TrialRecord], conclusion: Conclusion | None, folder: SearchFolder, monitor: str
) -> list[str]:
    tried = ", ".join(f"{len(found)} {level.name}" for level in LEVELS if (found := of_level(records, level.name)))
    facts = [f"{count(len(records), 'trial')}: {tried}."] if records else []
    if conclusion is None:
        return facts
    if optimism := conclusion.verdict.optimism:
        full = len([record for record in of_level(records, "full") if record.is_usable])
        facts.append(
            f"The best of {full} values on the same validation images is too good by about "
            f"{gain_text(optimism, monitor)}, because it was chosen for being the best."
        )
    facts.append(f"It ended because of this: {conclusion.reason}.")
    if conclusion.refit:
        facts.append(refit_sentence(conclusion.refit, folder, monitor))
    facts.append(f"Train with {folder.recipe.name}: {command('thaw', 'train', 'DATA', '--recipe', folder.recipe)}")
    return facts


def _dots(trials: Sequence[TrialRecord], monitor: str) -> list[charts.Dot]:
    """Values of one level against time; a trial that is better than all before it is on the line of the best."""
    dots, top = [], float("-inf")
    for record in sorted((trial for trial in trials if trial.is_usable), key=lambda trial: trial.ended):
        value = record.value if record.value is not None else 0.0
        title = f"{record.name} ({record.origin}): {outcome(record, monitor)}"
        dots.append(charts.Dot(record.ended, value, record.level, title, value > top))
        top = max(top, value)
    return dots


def _latency_chart(records: Sequence[TrialRecord], monitor: str) -> Markup:
    """Values against latency, where trials differ in it: with one network at one image size there is nothing to see."""
    dots = _frontier(records, monitor)
    if len({_milliseconds(dot.x) for dot in dots}) < 2:
        return Markup("")
    return Markup(charts.plane(dots, "latency of one image", _y_text(monitor), _milliseconds))


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _frontier(records: Sequence[TrialRecord], monitor: str) -> list[charts.Dot]:
    """Values against latency; a trial is on the line of the best where none of its level is both faster and better."""
    dots = []
    for level in LEVELS:
        top = float("-inf")
        timed = [record for record in of_level(records, level.name) if record.is_usable and record.latency_ms]
        for record in sorted(timed, key=lambda record: (record.latency_ms or 0.0, -(record.value or 0.0))):
            value = record.value or 0.0
            title = f"{record.name}, {_milliseconds(record.latency_ms or 0.0)}: {outcome(record, monitor)}"
            dots.append(charts.Dot(record.latency_ms or 0.0, value, level.name, title, value > top))
            top = max(top, value)
    return dots


def _level_part(
    level: Level,
    records: Sequence[TrialRecord],
    study: LevelStudy,
    file: SearchFile,
    recipes: dict[TrialName, str],
) -> LevelPart:
    trials, top = of_level(records, level.name), best(records, level.name)
    ranked = sorted(trials, key=lambda record: (not record.is_usable, -(record.value or 0.0), record.number))
    taken = sorted(record.seconds for record in trials if record.is_usable)
    importances = study.importances() if sum(record.is_usable for record in trials) >= _LEAST else {}
    recipes |= {record.name: _recipe(record, file) for record in trials if record.name not in recipes}
    rows = tuple(_row(record, level, file, recipes[record.name], record is top) for record in ranked)
    return LevelPart(
        name=level.name,
        colour=charts.COLOURS[level.name],
        measures=level.measures,
        trials=len(trials),
        median_seconds=duration(taken[len(taken) // 2]) if taken else "",
        importances=Markup(charts.bars(importances, "importance of each setting") if importances else ""),
        parallel=Markup(_parallel(study.ranges, [record for record in trials if record.is_usable], file.monitor)),
        rows=rows[:_SHOWN],
        more_rows=rows[_SHOWN:],
    )


def _row(record: TrialRecord, level: Level, file: SearchFile, recipe: str, is_best: bool) -> Row:
    if level.settings:
        own = {key: value for key, value in record.settings.items() if key in level.settings}
    else:
        planned = settings_of_plan(file.planned)
        own = {key: value for key, value in record.settings.items() if key not in planned or planned[key] != value}
    return Row(
        name=str(record.name),
        origin=record.origin,
        parent=str(record.parent) if record.parent else "",
        settings=_by_section(own) or "as planned",
        outcome=outcome(record, file.monitor),
        seconds=duration(record.seconds),
        recipe=recipe,
        is_best=is_best,
    )


def _by_section(settings: Mapping[str, Any]) -> str:
    """Settings with what their keys share said once, such as `views 4; phases.1: cut stages:2, lr 0.001`."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"{name} {_text(value, key)}".replace(" ", "\N{NO-BREAK SPACE}"))
    return "; ".join(f"{name}: {', '.join(items)}" if name else ", ".join(items) for name, items in sections.items())


def _recipe(record: TrialRecord, file: SearchFile) -> str:
    if record.origin == "plan" or record.state == "failed":
        return file.planned.to_yaml() if record.origin == "plan" else ""
    return recipe_of(file.base, record.settings, dict(file.weights)).to_yaml()


def _parallel(ranges: Mapping[str, Searched], trials: Sequence[TrialRecord], monitor: str) -> str:
    """The settings of a level as axes, and the value as the last one; empty where there is too little to see."""
    varied = [key for key in ranges if len({_text(trial.settings.get(key), key) for trial in trials}) > 1]
    if len(trials) < _LEAST or not varied:
        return ""
    values = [trial.value or 0.0 for trial in trials]
    low, high = min(values), max(values)
    axes = [charts.Axis(key, _ticks(ranges[key], key)) for key in varied]
    axes.append(charts.Axis(METRICS[monitor].title, [(0.0, _y_text(monitor)(low)), (1.0, _y_text(monitor)(high))]))
    lines = []
    for trial, value in zip(trials, values, strict=True):
        rank = charts.place_of(value, low, high, is_log=False)
        places = [*(_place(ranges[key], trial.settings.get(key)) for key in varied), rank]
        lines.append(charts.Line(places, rank, f"{trial.name}: {outcome(trial, monitor)}"))
    return charts.parallel(axes, lines)


def _ticks(tried: Searched, key: str) -> list[tuple[float, str]]:
    if isinstance(tried, Range):
        return [(0.0, f"{tried.low:g}"), (1.0, f"{tried.high:g}")]
    last = max(1, len(tried.values) - 1)
    return [(index / last, _text(value, key)) for index, value in enumerate(tried.values)]


def _place(tried: Searched, value: Any) -> float:
    if value is None and isinstance(tried, Range):
        return 0.0
    near = tried.nearest(value)
    if isinstance(tried, Range):
        return charts.place_of(float(near), tried.low, tried.high, tried.log)
    return tried.values.index(near) / max(1, len(tried.values) - 1)


def _text(value: Any, key: str) -> str:
    """A value of a setting as a person writes it."""
    if value is None:
        # The augmentation that the plan has chosen is no preset; the image size is that of the pre-training.
        return "as planned" if key.endswith(".augment") else "as trained"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) or "none"
    return str(value)


def _y_text(monitor: str) -> Any:
    """Formats a value for an axis."""
    metric = METRICS[monitor]
    if metric.kind == "fraction":
        return lambda value: percent(value)
    return lambda value: f"{value if metric.higher_is_better else -value:.3f}"
