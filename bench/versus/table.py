"""From the records of runs to the Markdown page; extrapolated values are marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from statistics import median

from bench.versus.interface import PARTS

THAW = "thaw_cli"
Record = dict
TITLES = ("tool", "start", "data", "features", "phase 1", "phase 2", "evaluation", "**total**", "x Thaw")
FURTHER = ("val", "test", "memory", "cores", "measured")

INTRODUCTION = """# Benchmark

Written by `python -m bench.versus`; every number was measured on the machine below. All tools use the same images,
split, backbone, initial weights, batch size, epochs and kinds of augmentation; each runs in a fresh process. Times are
in seconds.

- start: from process start until the libraries are imported. data: table, model, weights; for Thaw also decoding the
  images and the plan. features: feature extraction (only Thaw), with checkpoints. The phases include validation after
  each epoch.
- x Thaw: total time of the tool divided by that of Thaw.
- memory: peak of the process and its children, with shared pages counted once.
- cores: CPU time divided by wall time.
- measured: "2 + 2 of 10 + 10, scaled" means that the tool ran two epochs of each phase, and that the missing epochs
  were added at the cost of the second (or of the first, where only one was run). Scaled numbers begin with ~; a scaled
  run has no accuracy.
- Thaw and fastai use their own learning rates and schedules, the others those of the guide.
"""


def scaled(record: Record) -> Record:
    """The record with missing epochs added at the mean cost of the epochs after the first."""
    if not is_scaled(record):
        return record
    seconds, total = dict(record["seconds"]), record["total_seconds"]
    for phase, wanted in zip(("phase1", "phase2"), record["epochs_wanted"], strict=True):
        epochs = record["epoch_seconds"][phase]
        missing = wanted - len(epochs)
        if missing > 0:
            later = epochs[1:] or epochs
            more = missing * sum(later) / len(later)
            seconds[phase] += more
            total += more
    return {**record, "seconds": seconds, "total_seconds": total}


def is_scaled(record: Record) -> bool:
    """Whether fewer epochs were run than the job has; Thaw always completes the job, and may solve a head in fewer."""
    return record["peer"].partition("@")[0] != THAW and _run(record) != tuple(record["epochs_wanted"])


def draw(records: Sequence[Record]) -> str:
    """The section of the page that compares all tools."""
    machines = [record for record in records if record["kind"] == "machine"]
    runs = [_with_current_names(record) for record in records if record["kind"] == "run"]
    jobs = dict.fromkeys(_job(record) for record in runs)
    parts = [INTRODUCTION, machine_line(machines[-1]) if machines else ""]
    parts += [_section(job, [record for record in runs if _job(record) == job]) for job in jobs]
    parts.append(versions_line(runs))
    return "\n".join(filter(None, parts))


def with_section(page: str, section: str) -> str:
    """The page with this section in place of the one with the same heading, up to the next, or at its end."""
    heading = section.partition("\n")[0]
    pattern = re.compile(rf"^{re.escape(heading)}\n.*?(?=^# |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: f"{section}\n", page).rstrip("\n") + "\n"
    return f"{page.rstrip()}\n\n{section}".lstrip("\n")


def versions_line(runs: Sequence[Record]) -> str:
    """The versions of all packages that the runs used."""
    versions: dict[str, str] = {}
    for record in runs:
        versions |= record.get("versions", {})
    return "Versions: " + ", ".join(f"{name} {number}" for name, number in sorted(versions.items())) + ".\n"


def _with_current_names(record: Record) -> Record:
    """Older results call the part `features` `look`."""
    seconds = record.get("seconds", {})
    return {**record, "seconds": {"features" if name == "look" else name: value for name, value in seconds.items()}}


def _job(record: Record) -> tuple:
    return record["table"], record["job"], tuple(record["epochs_wanted"]), record["limit"]


def _run(record: Record) -> tuple[int, ...]:
    return tuple(len(record["epoch_seconds"][phase]) for phase in ("phase1", "phase2"))


def machine_line(facts: Record) -> str:
    """What the machine is, in one sentence."""
    flags = f" ({', '.join(facts['flags'])})" if facts["flags"] else ""
    return (
        f"Machine: {facts['cpu']}{flags}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}, Python "
        f"{facts['python']}; a {facts['torch']} matrix product runs at {facts['fp32_tflops']} TFLOP/s in fp32 and "
        f"{facts['bf16_tflops']} in bf16. Load average when this was measured: {facts['load']}.\n"
    )


def _section(job: tuple, runs: Sequence[Record]) -> str:
    table, name, epochs, limit = job
    shown = " + ".join(str(count) for count in epochs if count)
    title = f"## {table}, {name}, {shown} epochs{f', at most {limit} images per split' if limit else ''}\n"
    done = [record for record in runs if "failure" not in record]
    thaw = [record["total_seconds"] for record in done if record["peer"] == THAW]
    header = [*TITLES, *FURTHER]
    lines = [title, f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for peer in dict.fromkeys(record["peer"] for record in runs):
        measured = [record for record in done if record["peer"] == peer]
        if measured:
            lines.append(_row(measured, median(thaw) if thaw else None))
        else:
            failed = next(record for record in reversed(runs) if record["peer"] == peer)
            lines.append(f"| {failed['title']} | {failed['failure']} |{' |' * (len(header) - 2)}")
    notes = [f"{record['title']}: {note}." for record in done for note in record["notes"]]
    if any(record["random_weights"] for record in done):
        notes.insert(0, "Random weights: time only, accuracy is meaningless.")
    again = [record["second_trial_seconds"] for record in done if "second_trial_seconds" in record]
    if again:
        notes.insert(0, f"One more trial over the same data at other learning rates, Thaw: {median(again):.1f} s.")
    return "\n".join([*lines, "", *dict.fromkeys(notes), ""])


def _row(runs: Sequence[Record], thaw: float | None) -> str:
    marked = any(map(is_scaled, runs))
    whole = [scaled(record) for record in runs]

    def middle(value: Callable[[Record], float]) -> float:
        return median(value(record) for record in whole)

    def seconds(part: str) -> str:
        value = middle(lambda record: record["seconds"][part])
        return f"{'~' if marked and part.startswith('phase') else ''}{value:.1f}" if value else "-"

    total = middle(lambda record: record["total_seconds"])
    tilde = "~" if marked else ""
    silent = marked or runs[0]["random_weights"]
    accuracies = ["-" if silent else f"{middle(itemgetter(key)):.1%}" for key in ("val_accuracy", "test_accuracy")]
    ratio = f"{tilde}{total / thaw:.1f}" if thaw else "-"
    memory = f"{middle(lambda record: record['peak_pss_mb']):,.0f} MB"
    cores = f"{median(record['cpu_seconds'] / record['total_seconds'] for record in runs):.1f}"
    cells = [runs[0]["title"], *map(seconds, PARTS), f"**{tilde}{total:.1f}**", ratio, *accuracies, memory, cores]
    return f"| {' | '.join([*cells, _measured(runs)])} |"


def _measured(runs: Sequence[Record]) -> str:
    """The number of epochs and runs."""
    ran, wanted = (" + ".join(str(n) for n in counts if n) for counts in (_run(runs[0]), runs[0]["epochs_wanted"]))
    text = f"{ran} of {wanted}, scaled" if is_scaled(runs[0]) else "all"
    return text if len(runs) == 1 else f"{text}; median of {len(runs)}"
