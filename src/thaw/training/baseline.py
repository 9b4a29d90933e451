"""The baseline of a run among its phases: trained before all of them, compared after them, by the same rule.

Phases begin as if there were none, so that a run with a baseline and one without train the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from torch import Tensor

from thaw.training.checkpoint import Checkpoint, Progress
from thaw.training.context import FitContext
from thaw.training.gain import PhaseGain, gain_text, phase_gain

BASELINE: Final = "baseline"
"""The name of its only phase."""


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
