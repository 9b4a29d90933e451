"""MODEL_CARD.md: what the classifier is, how it was made, and how good it is, written from the run."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from thaw.classifier.classifier import Classifier
from thaw.data.manifest import Manifest
from thaw.evaluation.evaluate import Evaluation
from thaw.hub import PREFIX
from thaw.recipe import Recipe
from thaw.terminal.results import figure, percent
from thaw.terminal.run_summary import how


def write(classifier: Classifier, recipe: Recipe, manifest: Manifest, results: Mapping[str, Evaluation]) -> str:
    """The card as Markdown."""
    facts = classifier.backbone.facts
    phases = "\n".join(
        f"| {phase.name} | {phase.cut} | {phase.epochs} | {' | '.join(how(phase))} |" for phase in recipe.phases
    )
    return "\n".join(
        [
            f"# {facts.architecture}, fine-tuned with Thaw",
            "",
            f"Task: {classifier.task}. Classes: {', '.join(classifier.classes)}.",
            f"Pre-trained weights: {facts.origin} (licence: {facts.license}).",
            f"Input: {facts.pixels.size} x {facts.pixels.size} RGB; trained on {len(manifest.indices('train'))} "
            f"images, validated on {len(manifest.indices('val'))}.",
            "",
            "Figures with 95 % intervals; probabilities are calibrated on validation.",
            "",
            "| set | images | accuracy | balanced accuracy | macro F1 | mean AP | calibration error |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_result_row(split, result) for split, result in results.items()),
            "",
            *(line for split, result in results.items() for line in _class_table(split, result)),
            "## How it was trained",
            "",
            "| phase | cut | epochs at most | learning rate | optimizer | schedule |",
            "| --- | --- | --- | --- | --- | --- |",
            phases,
            "",
            f"Seed {recipe.seed}; augmentation {recipe.augment.preset}; class weights {recipe.class_weights}; "
            f"best epoch by validation {recipe.monitor}.",
            "",
        ]
    )


def for_hub(classifier: Classifier, card: str, name: str) -> str:
    """A card as the README.md of a model hub: with the header that hubs read, and how to use it from there."""
    name = name.removeprefix(PREFIX)
    facts = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "thaw"],
    }
    use = f"    thaw predict {PREFIX}{name} photos/\n\n    timm.create_model('hf-hub:{name}', pretrained=True)\n"
    about = card or f"# {classifier.backbone.facts.architecture}, fine-tuned with Thaw\n"
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n\n{about}\n## How to use it\n\n{use}"


def _result_row(split: str, result: Evaluation) -> str:
    found = result.overall
    return (
        f"| {split} | {result.images} | {percent(found.accuracy)} | {percent(found.balanced_accuracy)} | "
        f"{figure(found.macro_f1)} | {figure(found.mean_average_precision)} | {percent(found.calibration_error)} |"
    )


def _class_table(split: str, result: Evaluation) -> list[str]:
    return [
        f"## Classes on {split}",
        "",
        "| class | images | precision | recall | F1 |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {item.name} | {item.images} | {figure(item.metrics.precision)} | {figure(item.metrics.recall)} | "
            f"{figure(item.metrics.f1)} |"
            for item in result.per_class
        ),
        "",
    ]
