"""MODEL_CARD.md of a bundle: the classifier, its metrics and how it was trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from thaw import formats
from thaw.classifier.classifier import Classifier
from thaw.data.manifest import Manifest
from thaw.evaluation.evaluate import Evaluation
from thaw.hub import PREFIX
from thaw.metrics import CLASS_METRICS, METRICS
from thaw.recipe import ResolvedRecipe
from thaw.selection.estimates import Estimates
from thaw.terminal.classes import class_rows
from thaw.terminal.planning import training_method
from thaw.terminal.results import metric_rows
from thaw.training.gain import KEPT_FOR

# An underscore within a word means nothing in Markdown.
_SPECIAL = re.compile(r"([\\`*|<&\[\]~]|(?<!\w)_|_(?!\w))")
_DECISION = "Decision: "


def write(
    classifier: Classifier,
    recipe: ResolvedRecipe,
    manifest: Manifest,
    results: Mapping[str, Evaluation],
    estimates: Estimates | None = None,
) -> str:
    """The model card as Markdown.

    Args:
        classifier: The classifier.
        recipe: The resolved recipe that it was trained with.
        manifest: The data set.
        results: The evaluation of each split; without "val" for a classifier that is trained on its images too.
        estimates: What cross-validation before training made expect.
    """
    facts, size = classifier.backbone.facts, classifier.backbone.facts.pixels.size
    train, validation = formats.count(len(manifest.indices("train")), "image"), _validation(recipe, results)
    decision = classifier.decision.describe(classifier.task)
    phase_header = ("phase", "cut", "maximum epochs", "learning rate", "optimizer", "schedule")
    phases = [(phase.name, phase.cut, f"{phase.epochs}", *training_method(phase)) for phase in recipe.phases]
    return "\n".join(
        [
            f"# {facts.architecture}, fine-tuned with Thaw",
            "",
            f"Task: {classifier.task}. Classes: {', '.join(map(markdown, classifier.classes))}.",
            f"Pre-trained weights: {facts.origin} (licence: {facts.license}).",
            *(["Convolutions are computed in 8-bit integers, on the CPU by OpenVINO."] if facts.int8 else []),
            f"Input: {size} x {size} RGB; trained on {train}, {validation.images}.",
            "",
            "## Metrics",
            "",
            f"With 95% confidence intervals; probabilities are calibrated {validation.calibration}.",
            *([_decision(decision)] if decision else []),
            "",
            *_metrics(results),
            *([f"Accuracy of a linear head before training: {estimates.sentence()}.", ""] if estimates else []),
            *([f"Groups: {markdown(manifest.grouping)}.", ""] if manifest.grouping else []),
            "## Training",
            "",
            *_table(phase_header, phases),
            "",
            f"Seed {recipe.seed}; augmentation {recipe.augment.preset}; class weights {recipe.class_weights}; "
            f"head features {recipe.head.features}; {validation.epochs}.",
            "",
        ]
    )


def with_decision(card: str, decision: str, before: Mapping[str, Evaluation], after: Mapping[str, Evaluation]) -> str:
    """A model card with the metrics of another decision.

    Args:
        card: That of the classifier with the decision that it was trained with.
        decision: The other one, in words.
        before, after: The evaluation of each split with either decision.
    """
    old, new = ("\n".join(_metrics(results)) for results in (before, after))
    card = "\n".join(line for line in card.split("\n") if not line.startswith(_DECISION))
    # One of an earlier release has other tables.
    changed = card.replace(old, new) if old in card else f"{card}\n## Metrics with this decision\n\n{new}"
    return f"{changed}\n{_decision(decision)}\n"


def _decision(text: str) -> str:
    """The line about the decision, in words."""
    return f"{_DECISION}{markdown(text)}."


def _metrics(results: Mapping[str, Evaluation]) -> list[str]:
    """The tables of the metrics, overall and by class."""
    header = ("metric", *(f"{split}, {formats.count(item.images, 'image')}" for split, item in results.items()))
    class_header = ("class", "images", *(metric.title for metric in CLASS_METRICS.values()))
    lines = [*_table(header, metric_rows(list(results.values()))), ""]
    for split, result in results.items():
        lines += [f"### Classes on {split}", "", *_table(class_header, class_rows(result, CLASS_METRICS)), ""]
    return lines


@dataclass(frozen=True)
class _Validation:
    """What validation was used for, in words: the images, for calibration, and to choose epochs."""

    images: str
    calibration: str
    epochs: str


def _validation(recipe: ResolvedRecipe, results: Mapping[str, Evaluation]) -> _Validation:
    monitor = METRICS[recipe.monitor].title
    if "val" not in results:
        return _Validation(
            "those of validation among them",
            "as on validation images before these were trained on",
            f"phases and epochs as validation {monitor} chose them before",
        )
    return _Validation(
        f"validated on {formats.count(results['val'].images, 'image')}",
        "on validation",
        f"best epoch of each phase by validation {monitor}; a later phase is kept for {KEPT_FOR[recipe.keep_phase]}",
    )


def for_hub(classifier: Classifier, card: str, name: str) -> str:
    """A model card as the README.md of a repository on a model hub: with front matter and usage."""
    name = name.removeprefix(PREFIX)
    library = classifier.backbone.facts.library
    front_matter = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", library, "thaw"],
    }
    usage = f"    thaw predict {PREFIX}{name} photos/\n"
    if library == "timm" and not classifier.backbone.facts.int8:
        usage += f"\n    timm.create_model('hf-hub:{name}', pretrained=True)"
        usage += "\n" if classifier.has_plain_head else "  # without its head, head.safetensors\n"
    about = card or f"# {classifier.backbone.facts.architecture}, fine-tuned with Thaw\n"
    return f"---\n{yaml.safe_dump(front_matter, sort_keys=False)}---\n\n{about}\n## Usage\n\n{usage}"


def markdown(text: str) -> str:
    """A text, such as a class name, that Markdown shows as it is, also in a cell of a table."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.splitlines()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [[markdown(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
