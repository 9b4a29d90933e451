"""The baseline of a run among its phases: trained before all of them, compared after them, by the same rule.

Phases begin as if there were none, so that a run with a baseline and one without train the same weights. A first phase
that would only repeat the baseline takes what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from torch import Tensor

from thaw.training.checkpoint import Checkpoint, Progress
from thaw.training.context import FitContext
from thaw.training.gain import PhaseGain, gain_text, phase_gain, phase_gains
from thaw.training.history import best_index

BASELINE: Final = "baseline"
"""The name of its only phase."""


def begin_with_baseline(run: FitContext, baseline: Checkpoint) -> None:
    """Let the first phase of a run that has not begun end as its baseline did, whose head and features are the same.

    Args:
        run: Its phases are not trained; its classifier has the weights of the baseline afterwards.
        baseline: The head, and the records of its only phase.
    """
    name, monitor = run.phases[0].name, run.settings.monitor
    records = tuple(replace(record, phase=name) for record in baseline.progress.records)
    done = Progress(phase=1, records=records, gains=phase_gains(records, run.settings.keep_rule))
    # Killed before the end of this, the run has not begun.
    run.checkpoints.save("last", Progress())
    # Before any epoch is written, which without a checkpoint would be those of a run that lost it.
    run.checkpoints.wait()
    run.classifier.load_state_dict(baseline.weights, strict=False)
    for number in range(1, len(records) + 1):
        run.on_epoch(records[:number], best_index(records[:number], monitor) == number - 1)
    run.on_note(f"phase {name} is the {BASELINE}, which is not trained again")
    run.checkpoints.save("best", done)
    run.checkpoints.save("last", done)
    run.checkpoints.wait()


def compare_baseline(
    run: FitContext, progress: Progress, baseline: Checkpoint, untrained: Mapping[str, Tensor]
) -> Progress:
    """Let the baseline of a run replace the last phase that is kept, if its gain over that is enough.

    Args:
        run: Its phases are trained; its classifier has the weights that are kept, afterwards too.
        progress: Of its phases.
        baseline: The head, and the records of its only phase.
        untrained: The weights that the phases have trained, before they did.

    Returns:
        The progress with the records and the gain of the baseline.
    """
    records, settings = (*progress.records, *baseline.progress.records), run.settings
    gain = phase_gain(records, BASELINE, progress.gains, settings.keep_rule)
    if gain is None:
        return progress
    if gain.is_kept:
        run.classifier.load_state_dict({**untrained, **baseline.weights}, strict=False)
        run.on_note(f"the {BASELINE} is kept, better than all that followed: {gain_text(gain, settings.monitor)}")
    return replace(progress, records=records, gains=(*progress.gains, gain))


def keeps_baseline(gains: Sequence[PhaseGain]) -> bool:
    """Whether the baseline is what a finished run keeps."""
    return any(gain.phase == BASELINE and gain.is_kept for gain in gains)
