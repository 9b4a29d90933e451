"""Pre-trained networks behind one interface; `build` and `rebuild` are the only ways to create one.

Supporting another library takes one module with these two functions, and one case in `_library`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from pydantic import ValidationError

from thaw.backbones.contract import Backbone
from thaw.backbones.facts import Facts, Pooling
from thaw.backbones.keras import is_of_keras
from thaw.backbones.preprocessing import settings_of
from thaw.errors import BackboneError, first_line
from thaw.recipe import PreprocessingSettings, Recipe


class Library(Protocol):
    """The functions that the module of a library must have."""

    def build(
        self, name: str, weights: str, preprocessing: PreprocessingSettings | None, pooling: Pooling, seed: int
    ) -> Backbone:
        """Build a pre-trained network by name, frozen."""
        ...

    def rebuild(self, facts: Facts, pooling: Pooling) -> Backbone:
        """Build the architecture that facts describe; the caller loads the weights."""
        ...


def build(recipe: Recipe) -> Backbone:
    """Build the pre-trained network of a recipe, frozen.

    Weights are `published` (bundled, cached or from the Hub), `random`, or from a file. They define the preprocessing,
    which settings of the recipe override. Random weights depend only on the seed of the recipe. Until `head.features`
    is decided, the head takes the last stage.

    Raises:
        BackboneError: The network is unknown, comes with a preprocessing that no recipe can have, does not take images
            of the size that the recipe sets, or has no stages below the last one that a head could take.
        WeightsError: The weights are missing, unreachable or do not fit.
    """
    library = _library("keras" if is_of_keras(recipe.backbone) else "timm")
    backbone = library.build(recipe.backbone, recipe.weights, recipe.preprocessing, recipe.head.pooling, recipe.seed)
    _check_preprocessing(backbone.facts, recipe.backbone)
    if recipe.preprocessing.image_size is not None:
        _check_size(backbone, recipe.backbone)
    backbone.use_features(recipe.head.taken)
    return backbone


def rebuild(facts: Facts, pooling: Pooling) -> Backbone:
    """Build the architecture that `facts` describe; the caller loads the weights.

    Raises:
        BackboneError: The library, or its installed version, does not have it.
    """
    return _library(facts.library).rebuild(facts, pooling)


def _check_preprocessing(facts: Facts, name: str) -> None:
    """Refuse what a plan could not write down, such as images of 28 px, before any image is decoded."""
    try:
        settings_of(facts)
    except ValidationError as error:
        wrong = error.errors()[0]
        setting = wrong["loc"][0]
        raise BackboneError(
            f"backbone {name!r}: comes with the {setting} {wrong['input']}, which Thaw does not take ({wrong['msg']}); "
            f"set another preprocessing.{setting}"
        ) from error


def _check_size(backbone: Backbone, name: str) -> None:
    """Run an image through a network, because some are too deep for small images, and some add maps that do not fit."""
    size = backbone.facts.pixels.size
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BackboneError(
            f"backbone {name!r}: does not take images of {size} px ({first_line(error)}); choose another image_size"
        ) from error


def _library(name: str) -> Library:
    """The module of a library, imported on first use."""
    if name == "timm":
        from thaw.backbones import timm_backbone

        return timm_backbone
    if name == "keras":
        from thaw.backbones import keras_backbone

        return keras_backbone
    raise BackboneError(f"library {name!r} is not supported by this version of Thaw; update Thaw")
