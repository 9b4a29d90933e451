"""A second division into training and validation images, for a gain that few validation images leave unclear."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from thaw.formats import count
from thaw.training.checkpoint import Progress
from thaw.training.context import FitCallbacks, FitContext
from thaw.training.gain import PhaseGain, gain_text, pooled
from thaw.training.sources import PhaseSources

_FOLDER = "second"
"""Folder, among the checkpoints, of those of the second split."""

_SILENT = FitCallbacks(lambda records, is_best: None, lambda sentence: None)


def gain_on_both_splits(
    run: FitContext,
    progress: Progress,
    gain: PhaseGain,
    untrained: Mapping[str, Tensor],
    fit: Callable[[FitContext, Callable[[int], PhaseSources]], Progress],
) -> PhaseGain:
    """The gain over the first phase, both trained once more on the second split; the classifier is left with these.

    Args:
        run: The run; without a second split the gain is returned as it is.
        progress: At the end of the phase.
        gain: Of the phase on the first split.
        untrained: The weights that the run began with.
        fit: `thaw.training.fit.fit`, with which a killed run resumes on the second split as well.
    """
    second, settings = run.second, run.settings
    if second is None:
        return gain
    first = [phase.name for phase in run.phases].index(progress.gains[0].phase)
    indices = (first, progress.phase)
    phases = [run.phases[index] for index in indices]
    images = count(settings.val_images, "validation image")
    run.on_note(
        f"phase {gain.phase} {gain_text(gain, settings.monitor)}: {images} are too few to tell, so phases "
        f"{phases[0].name} and {phases[1].name} are trained once more on another split"
    )
    run.classifier.load_state_dict(untrained, strict=False)
    again = replace(
        settings,
        checkpoints=settings.checkpoints / _FOLDER,
        val_images=second.val_images,
        val_groups=second.val_groups,
        target=None,
        phase_seconds=(),
    )
    other = replace(run, phases=phases, settings=again, callbacks=_SILENT, second=None)
    gains = fit(other, lambda index: second.sources_of(indices[index])).gains
    found = next((other for other in gains if other.phase == gain.phase and other.before is not None), None)
    return pooled(gain, found) if found else gain


def remove_second(run: FitContext) -> None:
    """Delete the checkpoints of the second split, which are of use until the run ends."""
    if run.process.is_main:
        shutil.rmtree(run.settings.checkpoints / _FOLDER, ignore_errors=True)
