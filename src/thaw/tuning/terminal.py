"""What a search shows on the console: a line for each trial."""

from __future__ import annotations

from math import isinf

from thaw.clock import Clock
from thaw.evaluation.evaluate import Evaluation
from thaw.formats import count, duration, percent
from thaw.metrics import METRICS
from thaw.progress import Reporter
from thaw.run_folder.search_folder import SearchFolder
from thaw.run_folder.trial_record import TrialRecord
from thaw.terminal.metric_text import estimate_text

_SHOWN = 5


def show_trial(record: TrialRecord, top: TrialRecord | None, clock: Clock, monitor: str, reporter: Reporter) -> None:
    """One line: what was tried, what came of it, the best so far at its level, and the time left."""
    what = f"{record.name} ({record.origin})" if record.origin != "sampled" else str(record.name)
    said = [f"{what}: {outcome(record, monitor)}"]
    if top and top.name == record.name:
        said.append("the best of its level so far")
    elif top and top.value is not None:
        said.append(f"best {value_text(top.value, monitor)} ({top.name})")
    said.append(f"took {duration(record.seconds)}")
    if not isinf(clock.left()):
        said.append(f"{duration(max(0.0, clock.left()))} left")
    reporter.say("; ".join(said))


def refit_sentence(found: Evaluation, folder: SearchFolder, monitor: str) -> str:
    """What came of training on all images but those of test."""
    metric = METRICS[monitor if found.overall.get(monitor) else "accuracy"]
    reached = estimate_text(found.overall.get(metric.name), metric)
    return (
        f"Trained on all images but those of test: {metric.title} {reached} on {count(found.images, 'test image')}; "
        f"run and bundle {folder.refit.path}."
    )


def outcome(record: TrialRecord, monitor: str) -> str:
    """What came of a trial: its value, or why it has none."""
    if record.value is None:
        return f"{record.state}: {record.reason}"
    shown = value_text(record.value, monitor, record.standard_error)
    return f"{shown}, {record.state}" if record.state != "complete" else shown


def gain_text(gain: float, monitor: str) -> str:
    """How much better a value of the monitored metric is: `1.3 points` higher, or for a loss `0.0130` lower."""
    return f"{gain:.4f}" if METRICS[monitor].kind != "fraction" else f"{100 * gain:.1f} points"


def value_text(value: float, monitor: str, standard_error: float | None = None) -> str:
    """A value as it is read: a fraction as percent, a loss as it is."""
    metric = METRICS[monitor]
    if metric.kind != "fraction":
        return f"{metric.title} {value if metric.higher_is_better else -value:.4f}"
    error = f" ± {100 * standard_error:.1f}" if standard_error else ""
    return f"{metric.title} {percent(value)}{error}"
