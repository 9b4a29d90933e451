"""Taking over the head of a user's own model, so that training goes on where it ended."""

from __future__ import annotations

from thaw.backbones.contract import Backbone
from thaw.classifier.classifier import fits, outputs_of
from thaw.data.manifest import Manifest
from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.recipe import HeadSettings


def with_trained_head(planned: PlannedRecipe, backbone: Backbone, manifest: Manifest) -> PlannedRecipe:
    """A recipe for a head like the one that came with the backbone, where these classes agree with it.

    Only where the recipe asks for no hidden layers of its own, and not for the features of all stages. A linear head
    needs no other recipe: it is fitted to its optimum, wherever it begins.
    """
    recipe, trained = planned.recipe, backbone.trained_head
    if trained is None or recipe.head.hidden or recipe.head.features == "all":
        return planned
    outputs = outputs_of(manifest.task, manifest.classes)
    if not fits(trained, backbone, outputs):
        why = f"a new head: that of {trained.source} has {trained.outputs} outputs after {trained.pooling} pooling"
        return PlannedRecipe(recipe, (*planned.choices, Choice("head.hidden", "none", why)))
    if not trained.hidden:
        return planned
    is_requested = recipe.head.dropout != HeadSettings().dropout
    dropout = recipe.head.dropout if is_requested else trained.dropout or recipe.head.dropout
    head = recipe.head.model_copy(update={"hidden": trained.hidden, "features": "last", "dropout": dropout})
    units = ", ".join(str(number) for number in trained.hidden)
    why = f"training goes on from the head of {trained.source}, with a dropout of {dropout:g}"
    choice = Choice("head.hidden", units, f"{why}{' as requested' if is_requested else ''}")
    return PlannedRecipe(recipe.model_copy(update={"head": head}), (*planned.choices, choice))
