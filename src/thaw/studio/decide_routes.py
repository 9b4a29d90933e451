"""Routes of the screen Decide."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from thaw.formats import command
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings, Recipe
from thaw.studio.training_routes import finished_run
from thaw.studio.workspace import Workspace

if TYPE_CHECKING:
    from thaw.studio.decisions import Foreseen

_MAX_CLASSES = 10_000
_Fractions = Annotated[dict[str, float], Field(max_length=_MAX_CLASSES)]


class DecideRequest(BaseModel):
    """Settings of the section `decision` of a recipe; what is not given stays as the run has it.

    Targets and costs, if any are given, replace all of the run; empty ones are none.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    recall: _Fractions | None = None
    precision: _Fractions | None = None
    costs: Annotated[dict[str, _Fractions], Field(max_length=_MAX_CLASSES)] | None = None
    coverage: float | None = None
    in_distribution: float | None = None

    def settings(self) -> DecisionSettings:
        """The settings that are given; raises `RecipeError` for one that is not allowed."""
        return Recipe.from_values({"decision": self.model_dump(exclude_none=True)}, where="decide").decision


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; they need PyTorch, which the first screen does not wait for."""
    routes = APIRouter()

    def foreseen(name: str, settings: DecisionSettings) -> dict[str, Any]:
        from thaw.studio.decisions import foresee

        run = finished_run(workspace, name)
        with workspace.computing:
            return _message(foresee(run, settings, workspace.project, workspace.images))

    @routes.get("/api/decide/{name}")
    def present(name: str) -> dict[str, Any]:
        trained = finished_run(workspace, name).read_recipe().decision
        return {**foreseen(name, DecisionSettings()), "settings": trained.model_dump(mode="json")}

    @routes.post("/api/decide/{name}")
    def outcome(name: str, request: DecideRequest) -> dict[str, Any]:
        return foreseen(name, request.settings())

    @routes.post("/api/decide/{name}/bundle")
    def write(name: str, request: DecideRequest) -> dict[str, Any]:
        from thaw.pipeline import decide

        run, settings = finished_run(workspace, name), request.settings()
        with workspace.computing:
            workspace.project.bundles.mkdir(exist_ok=True)
            bundle = _new_bundle(workspace.project.bundles, name)
            decide(run.path, settings, bundle, NullReporter())
        workspace.note(
            "decide", run=name, settings=settings.model_dump(mode="json", exclude_unset=True), bundle=bundle.name
        )
        return {
            "bundle": str(bundle),
            "command": command("thaw", "predict", bundle, "IMAGES", "--out", "predictions.csv"),
        }

    return routes


def _new_bundle(folder: Path, run: str) -> Path:
    """The first free place for a bundle of a run."""
    number = 1
    while (place := folder / f"{run}-decision-{number}").exists():
        number += 1
    return place


def _message(found: Foreseen) -> dict[str, Any]:
    thresholds = dict(found.decided.decision.thresholds)
    return {
        "classes": found.classes,
        "summary": found.decided.decision.reason,
        "unmet": found.decided.unmet,
        "thresholds": [thresholds.get(index) for index in range(len(found.classes))],
        "costs": bool(found.decided.decision.costs),
        "splits": {split: asdict(outcome) for split, outcome in found.outcomes.items()},
        "slices": [asdict(one) for one in found.slices],
    }
