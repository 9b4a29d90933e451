"""Other learning rates, mixup and label smoothing for the phase that thaws, compared with those of the plan.

    python -m bench.phase_settings ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 3 --set weights=net.pth

`{seed}` in a path is replaced by each seed. The head is trained, and from it the phase with each of `SETTINGS`, with
the early stopping of the plan. Trainings that are already in `FOLDER/phase-settings.jsonl` are skipped.

Prints the mean test accuracy of each, and how often a run would keep it; then the differences to the phase as planned,
on the same test images, with their standard errors, and the ratios of the CPU seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bench.schedules import (
    HEAD,
    PLANNED,
    TimedTraining,
    correct_on,
    epochs_of,
    is_kept,
    means,
    parser_of,
    show_differences,
    sources_of_test,
    state_of,
    trained,
    with_head,
)
from thaw.training.history import EpochRecord, best_index
from thaw.trial import Trial

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    PLANNED: {},
    "three times the rate": {"lr": 1e-3},
    "mixup": {"mixup": 0.2},
    "both": {"lr": 1e-3, "mixup": 0.2},
    "three times the rate, label smoothing": {"lr": 1e-3, "label_smoothing": 0.1},
}


def train(trial: Trial) -> Iterator[TimedTraining]:
    """The head, then the phase that thaws with each of the settings, from the weights that the head phase has left."""
    thawed = trial.recipe.phases[1]
    run, head = with_head(trial, trial.folder.checkpoints)
    settings, sources, start = run.settings, trial.inputs.sources_of(1), state_of(run.classifier)
    test = sources_of_test(trial, thawed.name)
    yield TimedTraining("", settings.seed, HEAD, 0, True, correct_on(run.classifier, test, settings.precision), 0.0)
    for name, changes in SETTINGS.items():
        run.classifier.load_state_dict(start)
        started, best, records = time.process_time(), start, tuple[EpochRecord, ...]()
        for progress in epochs_of(run, thawed.model_copy(update=dict(changes)), sources):
            records = progress.records
            if best_index(records, settings.monitor) == len(records) - 1:
                best = state_of(run.classifier)
        seconds = time.process_time() - started
        run.classifier.load_state_dict(best)
        correct = correct_on(run.classifier, test, settings.precision)
        kept = is_kept(head, records[best_index(records, settings.monitor) or 0], settings.keep_rule)
        yield TimedTraining("", settings.seed, name, len(records), kept, correct, seconds)


def main() -> None:
    results = trained(parser_of(__doc__).parse_args(), "phase-settings.jsonl", TimedTraining, train)
    print(means(results, lambda found: f", {statistics.mean(each.seconds for each in found):.1f} s"))
    show_differences(results)


if __name__ == "__main__":
    main()
