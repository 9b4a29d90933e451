"""Pre-trained networks behind one contract; `build` and `rebuild` are the only ways to one.

Another library is one more module with these two functions, and one more case in `_library`.
"""

from __future__ import annotations

from typing import Protocol

from thaw.backbones.contract import Backbone, Facts, Pooling
from thaw.errors import BackboneError
from thaw.recipe import PreprocessingSettings, Recipe


class Library(Protocol):
    """What a module must offer to bring in the networks of a library."""

    def build(
        self, name: str, weights: str, preprocessing: PreprocessingSettings | None, pooling: Pooling, seed: int
    ) -> Backbone:
        """A pre-trained network by name, frozen."""
        ...

    def rebuild(self, facts: Facts, pooling: Pooling) -> Backbone:
        """The architecture that facts describe, with weights still to be loaded."""
        ...


def build(recipe: Recipe) -> Backbone:
    """The pre-trained network of a recipe, frozen.

    Weights are `published` (bundled, cached or from the Hub), `random`, or those of a file; preprocessing comes with
    them, and what the recipe says replaces it. Random weights depend on the recipe's seed alone. Raises `BackboneError`
    for an unknown name, and `WeightsError` for weights that are missing, unreachable or do not fit.
    """
    library = _library("timm")
    return library.build(recipe.backbone, recipe.weights, recipe.preprocessing, recipe.head.pooling, recipe.seed)


def rebuild(facts: Facts, pooling: Pooling) -> Backbone:
    """The architecture that `facts` describe, with weights still to be loaded by the caller.

    Raises `BackboneError` where the library, or its version, does not have it.
    """
    return _library(facts.library).rebuild(facts, pooling)


def _library(name: str) -> Library:
    """The module of a library, imported when it is first needed."""
    if name == "timm":
        from thaw.backbones import timm_backbone

        return timm_backbone
    raise BackboneError(f"networks of {name!r} cannot be built by this version of Thaw; update it")
