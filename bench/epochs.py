"""How many epochs a thawed phase needs: test accuracy and CPU time of shorter schedules, from the same head.

    python -m bench.epochs ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 2 --set weights=model.safetensors

`{seed}` in a path is replaced by each seed. The head is trained, the features at the first thawed cut are extracted,
and the phase that thaws is trained from that head as the plan has it, and with each of `--epochs`, whose schedules end
with the last epoch and are not stopped early. Every training ends with its best epoch on validation. Trainings that are
already in `FOLDER/epochs.jsonl` are skipped.

Prints, for each data set, the mean test accuracy, CPU seconds and epochs of each schedule, and how often a run would
keep the phase; then the differences to the plan on the same test images with their standard errors, and the ratios of
the CPU seconds. Use one thread: the CPU seconds of several also count their waiting.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.schedules import (
    HEAD,
    PLANNED,
    TimedTraining,
    correct_on,
    means,
    parser_of,
    show_differences,
    sources_of_test,
    state_of,
    trained,
    with_schedule,
)
from thaw.recipe import ResolvedPhase
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.trial import Trial, fit_settings


def schedules(phase: ResolvedPhase, epochs: Sequence[int]) -> Iterator[tuple[str, ResolvedPhase]]:
    """The phase as planned, and with other numbers of epochs, all of which are trained."""
    phase = phase.model_copy(update={"optional": False})
    yield PLANNED, phase
    for number in epochs:
        yield str(number), with_schedule(phase, number, patience=None)


def train(trial: Trial, epochs: Sequence[int]) -> Iterator[TimedTraining]:
    """The head, then the phase that thaws with each schedule, each from the weights that the head phase has left."""
    plan = trial.folder.read_plan()
    assert plan is not None
    settings = fit_settings(trial, trial.folder.checkpoints, plan.run)
    head, thawed = trial.recipe.phases[:2]
    yield _trained(trial, HEAD, (head,), settings)
    state = state_of(trial.classifier)
    trial.inputs.sources_of(1)
    for name, phase in schedules(thawed, epochs):
        trial.classifier.load_state_dict(state)
        shutil.copytree(settings.checkpoints / HEAD, settings.checkpoints / name)
        yield _trained(trial, name, (head, phase), settings)


def _trained(trial: Trial, name: str, phases: Sequence[ResolvedPhase], settings: FitSettings) -> TimedTraining:
    """The last of some phases, trained from what the others have left in the checkpoints of that name, and tested."""
    own = replace(settings, checkpoints=settings.checkpoints / name, phase_seconds=())
    context = FitContext(trial.classifier, phases, own, FitCallbacks(lambda *_: None, print))
    started = time.process_time()
    progress = fit(context, trial.inputs.sources_of)
    seconds = time.process_time() - started
    # Its best epoch, whether or not it is kept.
    context.checkpoints.load("phase")
    correct = correct_on(trial.classifier, sources_of_test(trial, phases[-1].name), settings.precision)
    epochs = sum(record.phase == phases[-1].name for record in progress.records)
    return TimedTraining("", trial.recipe.seed, name, epochs, progress.gains[-1].is_kept, correct, seconds)


def _seconds_and_epochs(trainings: Sequence[TimedTraining]) -> str:
    seconds, epochs = (statistics.mean(getattr(each, what) for each in trainings) for what in ("seconds", "epochs"))
    return f", {seconds:.1f} s, {epochs:.1f}"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, nargs="+", default=[8, 6, 4])
    arguments = parser.parse_args()
    of_trial = functools.partial(train, epochs=arguments.epochs)
    results = trained(arguments, "epochs.jsonl", TimedTraining, of_trial)
    print(means(results, _seconds_and_epochs))
    show_differences(results)


if __name__ == "__main__":
    main()
