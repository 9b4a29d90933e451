"""The backbone of a recipe that names none: published weights where available, else the bundled starter."""

from __future__ import annotations

from collections.abc import Callable

from thaw.backbones import starter
from thaw.backbones.catalogue import look_up
from thaw.backbones.download import fetch, is_cached, is_offline
from thaw.errors import RecipeError, WeightsError
from thaw.recipe import DEFAULT_BACKBONE, Recipe

NETWORK = "mobilenetv2_100"
"""The default where its weights can be had."""


def name_backbone(recipe: Recipe, say: Callable[[str], None]) -> tuple[Recipe, str]:
    """A recipe that names its backbone, and why where it did not: then published weights may be downloaded.

    No connection is opened where weights are cached, random or a file, or downloads are forbidden (`is_offline`), and
    after a few seconds without an answer the starter is taken. `say` is told of a download before it begins, and of the
    starter where it takes the place of the default.
    """
    if recipe.backbone != DEFAULT_BACKBONE:
        return recipe, ""
    named = recipe.model_copy(update={"backbone": NETWORK})
    if recipe.weights != "published":
        return named, f"the default; weights: {recipe.weights}"
    if is_cached(NETWORK):
        return named, "the default; its weights are on this machine"
    source = look_up(NETWORK).source
    if not is_offline():
        say(f"the weights of the default backbone {NETWORK} are not on this machine: trying to download {source}")
    try:
        fetch(source)
    except WeightsError as error:
        reason = f"instead of the default {NETWORK}: {str(error).partition(';')[0]}"
        file = f"{NETWORK}.safetensors"
        say(
            f"NOTE: backbone {starter.NAME} {reason}. It is part of Thaw, and may be less accurate. To use {NETWORK}, "
            f"run `thaw models fetch {NETWORK} --to {file}` where there is internet, and add `--backbone {NETWORK} "
            f"--weights {file}` here; `--backbone {starter.NAME}` takes the starter without trying"
        )
        return recipe.model_copy(update={"backbone": starter.NAME}), reason
    return named, f"the default; its weights were downloaded from {source}"


def check_named(recipe: Recipe, purpose: str) -> None:
    """Raise `RecipeError` for backbone auto, which a plan chooses, where nothing is planned.

    Args:
        recipe: Names a network, or leaves it at the default.
        purpose: What the network is for, such as "quantise".
    """
    if recipe.backbone == "auto":
        raise RecipeError(f"backbone auto: is chosen when a run is planned; name the network to {purpose}")
