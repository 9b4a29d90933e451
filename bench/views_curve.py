"""Test accuracy against the number of stored views, up to one fresh view an epoch.

    python bench/views_curve.py DATA --backbone mobilenetv2_100 --weights FILE --epochs 10 --seeds 5

One look gives `--epochs` views of each training image; K views are the first K of them, so K = epochs is fresh
augmentation in every epoch. Each seed gives another head, order and first view; split and views stay as they are, so
the columns differ in K alone. Prints mean and standard deviation of the test accuracy, for phase 1 alone and for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier, outputs_of
from thaw.classifier.head import Head
from thaw.data.dataset import Dataset
from thaw.data.prepare import Prepared, prepare
from thaw.features.cache import FeatureCache
from thaw.progress import NullReporter
from thaw.recipe import Engine, Phase, Recipe
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.outputs import outputs_at
from thaw.training.phases import PhaseInputs, input_plans
from thaw.training.sources import PhaseSources, Source, StoredSource


def make_inputs(recipe: Recipe, prepared: Prepared, backbone: Backbone, engine: Engine) -> PhaseInputs:
    """Everything stored, with as many views as the longest phase has epochs."""
    phases = tuple(phase.model_copy(update={"inputs": "cached"}) for phase in recipe.phases)
    views = max(phase.epochs for phase in phases)
    return PhaseInputs(
        plans=input_plans(recipe.model_copy(update={"phases": phases, "views": views})),
        pixels=prepared.pixels,
        backbone=backbone,
        engine=engine,
        train=prepared.rows("train"),
        val=prepared.rows("val"),
        test=prepared.rows("test"),
        cache=FeatureCache(cache_folder(), "uint8" if recipe.cache_dtype == "uint8" else "float16"),
        seed=0,
        device=torch.device("cpu"),
        bar=NullReporter().bar,
    )


def first_views(source: Source, views: int, seed: int) -> StoredSource:
    """The source with its first views only."""
    assert isinstance(source, StoredSource)
    return StoredSource.of(replace(source.features, views=views), source.targets, source.device, seed)


def accuracy(recipe: Recipe, prepared: Prepared, backbone: Backbone, engine: Engine, views: int, seed: int) -> float:
    """Test accuracy of one training from stored views; the backbone gets its weights back."""
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    manifest = prepared.manifest
    outputs = outputs_of(manifest.task, manifest.classes)
    head = Head(backbone.facts.width, outputs, (), recipe.head.dropout, seed)
    classifier = Classifier(backbone, head, manifest.classes, manifest.task, recipe.decode)
    inputs = make_inputs(recipe, prepared, backbone, engine)

    def sources_of(index: int) -> PhaseSources:
        whole = inputs.sources_of(index)
        return PhaseSources(first_views(whole.train, views, seed), whole.val)

    with tempfile.TemporaryDirectory() as folder:
        settings = FitSettings(
            seed, "bf16" if recipe.precision == "bf16" else "fp32", "accuracy", None, Path(folder), len(inputs.val.rows)
        )
        fit(FitContext(classifier, recipe.phases, settings, FitCallbacks(lambda *_: None, print)), sources_of)
    final = inputs.evaluation_sources([phase.name for phase in recipe.phases])
    assert final is not None
    outputs = outputs_at(classifier, final.position, final.test, "fp32")
    result = float((outputs.probabilities.argmax(axis=1) == outputs.targets).mean())
    backbone.load_state_dict(before)
    return result


def recipes(base: Recipe, epochs: int, cut: str) -> dict[str, Recipe]:
    """Phase 1 alone, and both phases."""
    head, top = base.phases
    phases: Sequence[Phase] = (
        head.model_copy(update={"epochs": epochs, "patience": None, "solver": "lbfgs"}),
        top.model_copy(update={"epochs": epochs, "cut": cut, "patience": None, "solver": "optimizer"}),
    )
    return {
        "head alone": base.model_copy(update={"phases": tuple(phases[:1])}),
        "both phases": base.model_copy(update={"phases": tuple(phases)}),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--cut", default="stages:3")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--engine", default="openvino-fp32")
    parser.add_argument("--precision", default="bf16", help="of the thawed part")
    parser.add_argument("--stored-as", default="float16", help="float16 or uint8")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    base = Recipe(
        backbone=asked.backbone, weights=asked.weights, precision=asked.precision, cache_dtype=asked.cache_dtype
    )
    backbone = build(asked.backbone, asked.weights)
    data = Dataset.open(asked.data)
    spec = backbone.facts.pixels
    prepared = prepare(data, spec, base.decode, base.split, None, cache_folder(), NullReporter().bar)
    columns = [*(views for views in asked.views if views < asked.epochs), asked.epochs]
    for name, recipe in recipes(base, asked.epochs, asked.cut).items():
        found: dict[int, list[float]] = defaultdict(list)
        started = time.perf_counter()
        for seed in range(asked.seeds):
            for views in columns:
                found[views].append(accuracy(recipe, prepared, backbone, asked.engine, views, seed))
        cells = [
            f"{views}{' (fresh)' if views == asked.epochs else ''}: {statistics.mean(values):.2%} "
            f"± {statistics.stdev(values):.2%}"
            for views, values in found.items()
        ]
        job = f"{asked.data.name}, {name}, {asked.epochs} epochs, {asked.seeds} seeds, {asked.cache_dtype}"
        print(f"{job}: {'; '.join(cells)}", flush=True)
        print(f"  took {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
