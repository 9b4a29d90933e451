"""Test accuracy against the number of cached views, up to a new view in every epoch.

    python bench/views_curve.py DATA --backbone mobilenetv2_100 --weights FILE --epochs 10 --seeds 5

Features of `--epochs` views of each training image are extracted; K views are the first K of them, so K = epochs
means a new view in every epoch. The seed changes the head, the order of the images and their first view; split and
views stay the same, so the columns differ in K only. Prints mean and standard deviation of the test accuracy, for
phase 1 alone and for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier, outputs_of
from thaw.classifier.head import Head
from thaw.data.dataset import Dataset
from thaw.data.prepare import DataPreparation, Prepared
from thaw.device import CPU
from thaw.features.cache import FeatureCache
from thaw.features.torch_runner import Precision
from thaw.formats import duration, percent
from thaw.progress import NullReporter
from thaw.recipe import USUAL_BATCH, Engine, Phase, Recipe, ResolvedPhase
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.outputs import outputs_at
from thaw.training.phases import PhaseInputs, input_plans
from thaw.training.sources import CachedSource, PhaseSources, Source


@dataclass(frozen=True)
class Setup:
    """What stays the same for every number of views and every seed."""

    recipe: Recipe
    prepared: Prepared
    backbone: Backbone
    engine: Engine

    def inputs(self) -> PhaseInputs:
        """Inputs of every phase from the cache, with as many views as the longest phase has epochs."""
        views = max(phase.epochs for phase in self.recipe.phases)
        return PhaseInputs(
            plans=input_plans(self.recipe.model_copy(update={"views": views})),
            pixels=self.prepared.pixels,
            backbone=self.backbone,
            engine=self.engine,
            train=self.prepared.rows("train"),
            val=self.prepared.rows("val"),
            test=self.prepared.rows("test"),
            cache=FeatureCache(cache_folder(), "uint8" if self.recipe.cache_dtype == "uint8" else "float16"),
            seed=0,
            device=CPU,
            bar=NullReporter().bar,
        )


def first_views(source: Source, views: int, seed: int) -> CachedSource:
    """A source with its first `views` views only."""
    assert isinstance(source, CachedSource)
    return CachedSource.of(replace(source.features, views=views), source.targets, source.device, seed)


def accuracy(setup: Setup, views: int, seed: int) -> float:
    """Test accuracy of one training from cached views; the backbone is left as it was."""
    recipe, backbone, manifest = setup.recipe, setup.backbone, setup.prepared.manifest
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    head = Head(backbone.facts.width, outputs_of(manifest.task, manifest.classes), (), recipe.head.dropout, seed)
    classifier = Classifier(backbone, head, manifest.classes, manifest.task, recipe.decode)
    inputs = setup.inputs()

    def sources_of(index: int) -> PhaseSources:
        whole = inputs.sources_of(index)
        return PhaseSources(first_views(whole.train, views, seed), whole.val)

    with tempfile.TemporaryDirectory() as folder:
        precision: Precision = "bf16" if recipe.precision == "bf16" else "fp32"
        settings = FitSettings(seed, precision, "accuracy", None, Path(folder), len(inputs.val.rows))
        phases = [ResolvedPhase(**{**phase.model_dump(), "batch_size": USUAL_BATCH}) for phase in recipe.phases]
        fit(FitContext(classifier, phases, settings, FitCallbacks(lambda *_: None, print)), sources_of)
    final = inputs.evaluation_sources([phase.name for phase in recipe.phases], ("test",))
    assert final is not None
    outputs = outputs_at(classifier, final.position, final.of_split["test"], "fp32")
    backbone.load_state_dict(before)
    return float((outputs.probabilities.argmax(axis=1) == outputs.targets).mean())


def recipes(base: Recipe, epochs: int, cut: str) -> dict[str, Recipe]:
    """Phase 1 alone, and both phases."""
    head, top = base.phases
    phases: Sequence[Phase] = (
        head.model_copy(update={"epochs": epochs, "patience": None, "solver": "lbfgs", "inputs": "cached"}),
        top.model_copy(
            update={"epochs": epochs, "cut": cut, "patience": None, "solver": "optimizer", "inputs": "cached"}
        ),
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
    parser.add_argument("--cache-dtype", default="float16", help="float16 or uint8")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    base = Recipe(
        backbone=arguments.backbone,
        weights=arguments.weights,
        precision=arguments.precision,
        cache_dtype=arguments.cache_dtype,
    )
    backbone = build(base)
    preparation = DataPreparation(base.decode, base.split, None, cache_folder(), NullReporter().bar)
    prepared = preparation.prepare(Dataset.open(arguments.data), backbone.facts.pixels)
    columns = [*(views for views in arguments.views if views < arguments.epochs), arguments.epochs]
    for name, recipe in recipes(base, arguments.epochs, arguments.cut).items():
        setup = Setup(recipe, prepared, backbone, arguments.engine)
        found: dict[int, list[float]] = defaultdict(list)
        started = time.perf_counter()
        for seed in range(arguments.seeds):
            for views in columns:
                found[views].append(accuracy(setup, views, seed))
        cells = [
            f"{views}{' (fresh)' if views == arguments.epochs else ''}: {percent(statistics.mean(values), 2)} "
            f"± {percent(statistics.stdev(values), 2)}"
            for views, values in found.items()
        ]
        print(f"{arguments.data.name}, {name}, {arguments.epochs} epochs, {arguments.seeds} seeds: {'; '.join(cells)}")
        print(f"  took {duration(time.perf_counter() - started)}", flush=True)


if __name__ == "__main__":
    main()
