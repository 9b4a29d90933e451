"""Routes of the screen Ship."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from thaw.errors import DataError
from thaw.formats import command
from thaw.studio.workspace import EXPORT, Workspace
from thaw.web.limits import RequestRefused

if TYPE_CHECKING:
    from thaw.studio.shipping import Shippable

_Name = Annotated[str, Field(max_length=80)]


class PromoteRequest(BaseModel):
    """A classifier is promoted instead of the one that is shown."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: _Name
    champion: _Name | None


class RollBackRequest(BaseModel):
    """The classifier that is shown is rolled back."""

    model_config = ConfigDict(extra="forbid", strict=True)
    champion: _Name | None


class ExportRequest(BaseModel):
    """A classifier is exported to a format."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: _Name
    to: _Name


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; they need PyTorch, which the first screen does not wait for."""
    routes = APIRouter()
    _add_promotions(routes, workspace)
    _add_exports(routes, workspace)
    return routes


def _add_promotions(routes: APIRouter, workspace: Workspace) -> None:
    promotions = workspace.promotions

    @routes.get("/api/ship")
    def now() -> dict[str, Any]:
        return _state(workspace)

    @routes.get("/api/ship/compare")
    def comparison(first: str, second: str) -> dict[str, Any]:
        return _compared(workspace, first, second)

    @routes.post("/api/ship/promote")
    def promote(request: PromoteRequest) -> dict[str, Any]:
        _classifier(workspace, request.name)
        verdict = _verdict(workspace, request.champion, request.name) if request.champion else ""
        promotions.promote(request.name, request.champion, verdict)
        return _state(workspace)

    @routes.post("/api/ship/rollback")
    def roll_back(request: RollBackRequest) -> dict[str, Any]:
        promotions.roll_back(request.champion)
        return _state(workspace)


def _add_exports(routes: APIRouter, workspace: Workspace) -> None:
    @routes.post("/api/ship/export")
    def export(request: ExportRequest) -> dict[str, Any]:
        from thaw.studio import shipping

        one = _classifier(workspace, request.name)
        if request.to not in shipping.formats():
            raise RequestRefused(422, "bad_request", "there is no such format, or its packages are not installed")

        def job() -> None:
            workspace.background.bar(f"export {one.name} to {request.to}")
            done = shipping.export(one, request.to, workspace.project.exports)
            facts = {
                "classifier": one.name,
                "to": request.to,
                "path": str(done.path),
                "size": done.size,
                "hint": done.hint,
                "decision": done.decision,
                "certificate": asdict(done.certificate),
            }
            workspace.note(EXPORT, **facts)
            workspace.exports.append(facts)

        workspace.background.submit("export", job)
        return _state(workspace)


def _classifier(workspace: Workspace, name: str) -> Shippable:
    from thaw.studio.shipping import shippable

    one = shippable(workspace.project, name)
    if one is None:
        raise RequestRefused(404, "not_found", "there is no such classifier")
    return one


def _compared(workspace: Workspace, first: str, second: str) -> dict[str, Any]:
    from thaw.studio.shipping import compare_on_labels

    pair = _classifier(workspace, first), _classifier(workspace, second)
    with workspace.computing:
        found = compare_on_labels(*pair, workspace.images, workspace.labels.marks())
    verdict = found.verdict.replace("The first run", first).replace("The second run", second)
    return {**asdict(found), "verdict": verdict}


def _verdict(workspace: Workspace, first: str, second: str) -> str:
    """How two classifiers compare, for the file; what cannot be compared can be promoted all the same."""
    try:
        return str(_compared(workspace, first, second)["verdict"])
    except RequestRefused as error:
        return f"not compared: {error.message}"
    except DataError as error:
        return f"not compared: {error}"


def _state(workspace: Workspace) -> dict[str, Any]:
    from thaw.studio import shipping

    project, promotions = workspace.project, workspace.promotions
    champion = shipping.shippable(project, promotions.champion) if promotions.champion else None
    commands = (
        [
            command("thaw", "predict", champion.bundle, "IMAGES", "--out", "predictions.csv"),
            command("thaw", "serve", champion.bundle),
        ]
        if champion
        else []
    )
    return {
        "classifiers": shipping.all_shippable(project, workspace.training.finished_runs()),
        "champion": promotions.champion,
        "previous": promotions.previous,
        "is_missing": promotions.champion is not None and champion is None,
        "steps": promotions.lines[::-1],
        "formats": shipping.formats(),
        "exports": workspace.exports[::-1],
        "commands": commands,
    }
