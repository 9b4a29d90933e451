"""What a trained classifier gives for the images of its trial, and the golden images that its bundle must reproduce."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.classifier.outputs import LabelledOutputs
from thaw.classifier.review import MAX_TRAIN_FEATURES
from thaw.evaluation.evaluate import LARGEST_GAP, bootstrap_groups, gap_to_files
from thaw.evaluation.finalize import SplitOutputs, outputs_of_rows
from thaw.processes import ALONE
from thaw.progress import Reporter
from thaw.training.outputs import outputs_at
from thaw.trial import Trial

GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class GoldenImages:
    """A few images that the bundle must reproduce: their split, their positions in it, and their files."""

    split: str
    positions: np.ndarray
    files: Sequence[Path]


def golden_images(trial: Trial, split: str = "val") -> GoldenImages:
    """Images of a split from first to last."""
    rows = trial.prepared.manifest.indices(split)
    positions = np.linspace(0, len(rows) - 1, min(GOLDEN_IMAGES, len(rows))).astype(int)
    return GoldenImages(split, positions, [trial.prepared.manifest.file(int(row)) for row in rows[positions]])


def trial_outputs(
    trial: Trial, trained: Collection[str], golden: GoldenImages, reporter: Reporter, evaluated: Sequence[str]
) -> SplitOutputs:
    """Outputs for every image: from cached features where these agree with the bundle's own path, else from pixels.

    Args:
        trial: The trial, its classifier trained.
        trained: Names of the phases that were not skipped.
        golden: Images for which both ways are compared.
        reporter: Shows progress, and says which way it is.
        evaluated: The splits to evaluate, that of the golden images among them; those without images are left out.
    """
    prepared, classifier = trial.prepared, trial.classifier
    manifest = prepared.manifest
    splits = [split for split in evaluated if len(manifest.indices(split))]
    groups = {split: bootstrap_groups(manifest, manifest.indices(split), prepared.duplicates) for split in splits}

    def from_pixels(split: str, rows: np.ndarray) -> LabelledOutputs:
        return outputs_of_rows(classifier, manifest, prepared.pixels, rows, reporter.bar(f"evaluate {split}"))

    rows = manifest.indices("train")
    # The main process does this alone.
    if final := replace(trial.inputs, process=ALONE).evaluation_sources(trained, splits):
        cached = {
            split: outputs_at(classifier, final.position, source, "fp32") for split, source in final.of_split.items()
        }
        train = cached.pop("train")
        gap = gap_to_files(classifier, cached[golden.split].probabilities[golden.positions], golden.files)
        if gap <= LARGEST_GAP:
            reporter.say(
                f"evaluated from cached features; on {len(golden.files)} golden images their probabilities differ from "
                f"the bundle's by at most {gap:.2g}"
            )
            return SplitOutputs(train, rows, cached, groups)
        reporter.say(f"probabilities from cached features differ by {gap:.2g}: evaluating from the images instead")
    else:
        rows = rows[np.linspace(0, len(rows) - 1, min(MAX_TRAIN_FEATURES, len(rows))).astype(int)]
        train = from_pixels("train", rows)
    return SplitOutputs(train, rows, {split: from_pixels(split, manifest.indices(split)) for split in splits}, groups)
