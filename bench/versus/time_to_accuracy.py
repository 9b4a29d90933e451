"""The section of the page on the time that Thaw takes to the accuracy of the fastest peer, and its drawings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.versus.curve_drawing import Line, draw_curves
from bench.versus.rounds import THAW, curves_of, fastest, rounds_of
from bench.versus.table import Record, machine_line, versions_line

HEADING = "# Time to the accuracy of the fastest peer"
INTRODUCTION = """Written by `python -m bench.versus --time-to-accuracy`. All tools use the same images, split, backbone
and initial weights, each in a fresh process. The peers train all epochs of both phases and end with the epoch that is
best on validation; Thaw plans itself, as `thaw train` does by default, with an empty cache.

- Time begins with the process. Test accuracy is measured after each epoch, and for Thaw on its baseline and its
  checkpoints. These tests are not counted, nor is the test of a peer at its end; Thaw's own evaluation, bundle and
  report are.
- fastest peer: the one with the shortest run. reached: when Thaw first had a classifier that is at least as accurate on
  the test images as the peer at its end: its baseline, a checkpoint, or the finished bundle. ratio: the time of the
  peer's run divided by that.
- Each seed is a round, in which a peer is compared with Thaw. Medians over rounds, with the lowest and the highest
  value in parentheses; where Thaw does not reach the accuracy, it says never, and the ratio is 0.
"""

Key = tuple
"""What all records of one set have in common."""


def key_of(record: Record) -> Key:
    """The set of a record."""
    return record["table"], record["job"], tuple(record["epochs_wanted"]), record["limit"]


def draw(records: Sequence[Record], folder: Path | None) -> str:
    """The section; the curves of each set are drawn as SVG files in a folder."""
    machines = [record for record in records if record["kind"] == "machine"]
    runs = [record for record in records if record["kind"] == "curve"]
    sets = {key: [run for run in runs if key_of(run) == key] for key in dict.fromkeys(map(key_of, runs))}
    parts = [f"{HEADING}\n", INTRODUCTION, machine_line(machines[-1]) if machines else "", _summary(sets)]
    parts += [_section(key, members, folder) for key, members in sets.items()]
    return "\n".join(filter(None, [*parts, versions_line(runs)]))


def _summary(sets: dict[Key, list[Record]]) -> str:
    """One row per set: Thaw and the fastest peer."""
    header = ("set", "fastest peer", "its run", "its accuracy", "Thaw reached it", "**ratio**")
    lines = _table_head((*header, "Thaw's run", "its accuracy", "ratio of runs", "rounds"))
    ratios = []
    for key, records in sets.items():
        curves = curves_of(records)
        peer = fastest(curves)
        if peer is None:
            continue
        rounds = rounds_of(curves, peer)
        ratios.append(median(one.ratio for one in rounds))
        cells = [_name(key), _title(records, peer)]
        cells += [_spread([one.peer[-1][0] for one in rounds], _seconds)]
        cells += [_spread([one.peer[-1][1] for one in rounds], _percent)]
        cells += [_spread([one.reached for one in rounds], _seconds)]
        cells += [f"**{_spread([one.ratio for one in rounds], _times)}**"]
        cells += [_spread([one.thaw[-1][0] for one in rounds], _seconds)]
        cells += [_spread([one.thaw[-1][1] for one in rounds], _percent)]
        cells += [_spread([one.ratio_of_runs for one in rounds], _times)]
        lines.append(_row([*cells, str(len(rounds))]))
    if ratios:
        lines.append(f"\nThe median ratio over {len(ratios)} set{'s' * (len(ratios) > 1)} is {_times(median(ratios))}.")
    return "\n".join(lines) + "\n"


def _section(key: Key, records: Sequence[Record], folder: Path | None) -> str:
    """One set: all tools, and their curves."""
    curves = curves_of(records)
    title = f"{_name(key)}, {key[1]}, {' + '.join(str(count) for count in key[2] if count)} epochs"
    lines = [f"## Time to accuracy: {title}\n"]
    lines += _table_head(("tool", "run", "accuracy", "Thaw reached it", "ratio", "runs"))
    for peer, of_seed in curves.items():
        ends = [points[-1] for points in of_seed.values()]
        rounds = [] if peer == THAW else rounds_of(curves, peer)
        cells = [_title(records, peer), _spread([seconds for seconds, _ in ends], _seconds)]
        cells += [_spread([accuracy for _, accuracy in ends], _percent)]
        cells += [_spread([one.reached for one in rounds], _seconds), _spread([one.ratio for one in rounds], _times)]
        lines.append(_row([*cells, str(len(ends))]))
    failures = {record["title"]: record["failure"] for record in records if record["peer"] not in curves}
    lines += [_row([tool, failure, "-", "-", "-", "0"]) for tool, failure in failures.items()]
    notes = [f"{run['title']}: {note}." for run in records if "failure" not in run for note in run["notes"]]
    lines += ["", *dict.fromkeys(notes)]
    if folder and curves:
        file = folder / f"time-to-accuracy-{re.sub(r'[^a-z0-9_]+', '-', title.lower())}.svg"
        drawn = [Line(_title(records, peer), list(of_seed.values())) for peer, of_seed in curves.items()]
        file.write_text(draw_curves(drawn), encoding="utf-8")
        lines.append(f"\n![Test accuracy against time: {title}]({file.name})")
    return "\n".join(lines) + "\n"


def _name(key: Key) -> str:
    table, _, _, limit = key
    return f"{table}, at most {limit} images per split" if limit else table


def _title(records: Sequence[Record], peer: str) -> str:
    return next(record["title"] for record in records if record["peer"] == peer)


def _table_head(header: Sequence[str]) -> list[str]:
    return [_row(header), f"|{' --- |' * len(header)}"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], to_text: Callable[[float], str]) -> str:
    """The median and, of several values, the lowest and the highest."""
    if not values:
        return "-"
    middle = to_text(median(values))
    return middle if len(values) == 1 else f"{middle} ({to_text(min(values))} to {to_text(max(values))})"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f} s"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _times(value: float) -> str:
    return f"{value:.1f}"
