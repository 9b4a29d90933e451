"""What an optional phase loses, and saves, if it ends because none of its first epochs is as good as the head.

    python -m bench.first_epochs ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 5 --set weights=net.safetensors

`{seed}` in a path is replaced by each seed. The head is trained, and from it the phase that thaws, with the early
stopping of the plan alone; after each epoch it is tested. From these epochs follows what a run would have kept, had it
ended the phase after its first 2, 3, 4 or 5 epochs where none of them is as good as the head on validation. Trainings
that are already in `FOLDER/first-epochs.jsonl` are skipped.

Prints the mean test accuracy of the phase and how often a run keeps it, then the differences to all epochs on the same
test images, with their standard errors, and the ratios of the numbers of epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.schedules import (
    HEAD,
    PLANNED,
    Training,
    correct_on,
    epochs_of,
    is_kept,
    means,
    parser_of,
    show_differences,
    sources_of_test,
    trained,
    with_head,
)
from thaw.recipe import Monitor
from thaw.training.history import EpochRecord, best_index
from thaw.trial import Trial

FIRST = (2, 3, 4, 5)


@dataclass(frozen=True)
class Ended(Training):
    """A phase that ended after some of its epochs."""

    @property
    def price(self) -> float:
        return self.epochs


@dataclass(frozen=True)
class Tested:
    """An epoch, and 0 or 1 for each test image."""

    record: EpochRecord
    correct: tuple[int, ...]


def train(trial: Trial) -> Iterator[Ended]:
    """The head, then the phase that thaws, and what it would have been with fewer epochs."""
    thawed = trial.recipe.phases[1]
    run, head = with_head(trial, trial.folder.checkpoints)
    settings, sources = run.settings, trial.inputs.sources_of(1)
    test = sources_of_test(trial, thawed.name)
    yield Ended("", settings.seed, HEAD, 0, True, correct_on(run.classifier, test, settings.precision))
    epochs = [
        Tested(progress.records[-1], correct_on(run.classifier, test, settings.precision))
        for progress in epochs_of(run, thawed, sources)
    ]
    before = head.records[best_index(head.records, settings.monitor) or 0].val.by(settings.monitor)
    for name, first in ((PLANNED, len(epochs)), *((f"the first {number}", number) for number in FIRST)):
        ended = epochs[:first] if falls_short(epochs[:first], before, settings.monitor) else epochs
        best = ended[best_index([each.record for each in ended], settings.monitor) or 0]
        kept = is_kept(head, best.record, settings.keep_rule)
        yield Ended("", settings.seed, name, len(ended), kept, best.correct)


def falls_short(epochs: Sequence[Tested], before: float, monitor: Monitor) -> bool:
    """Whether none of some epochs is as good on validation as what was there before."""
    return max(each.record.val.by(monitor) for each in epochs) < before


def main() -> None:
    results = trained(parser_of(__doc__).parse_args(), "first-epochs.jsonl", Ended, train)
    print(means(results, lambda found: f", {sum(each.epochs for each in found) / len(found):.1f} epochs"))
    show_differences(results)


if __name__ == "__main__":
    main()
