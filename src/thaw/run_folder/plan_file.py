"""plan.json: what was requested, what was planned and why, what each phase gained, and the time predicted and taken."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from thaw.recipe import Recipe

if TYPE_CHECKING:
    from thaw.planning.costs import Forecast
    from thaw.planning.measurements import Choice
    from thaw.selection.estimates import Estimates
    from thaw.training.gain import PhaseGain
    from thaw.training.skipping import SkippedPhase


@dataclass(frozen=True)
class ActualCosts:
    """What a run took.

    seconds: from the first image to the bundle. extraction: of all passes that extracted features; extraction_passes:
    how many there were over the training images. phases: (index, name, seconds) of the epochs of each phase that was
    trained. epochs: how many of each phase of the recipe were trained. is_resumed: whether training had begun before
    the run was resumed; phases and epochs include what came before, seconds and extraction do not. memory_bytes: the
    most resident memory that the process has had, 0 in earlier versions.
    """

    seconds: float
    extraction: float
    extraction_passes: int
    phases: tuple[tuple[int, str, float], ...]
    epochs: tuple[int, ...]
    is_resumed: bool = False
    memory_bytes: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ActualCosts:
        """What `asdict` gave, or release 0.1, which called extraction a look."""
        return cls(
            seconds=values["seconds"],
            extraction=values.get("extraction", values.get("look")),
            extraction_passes=values.get("extraction_passes", values.get("looks")),
            phases=tuple((index, name, seconds) for index, name, seconds in values["phases"]),
            epochs=tuple(values["epochs"]),
            is_resumed=values.get("is_resumed", False),
            memory_bytes=values.get("memory_bytes", 0),
        )


@dataclass(frozen=True)
class PlanFile:
    """The content of plan.json.

    machine: on which the run began, and once it has finished, on which it did. files: SHA-256, by name, of files that
    must not change during the run; none in release 0.1. estimates: the accuracy to expect, where it was measured.
    pixels: key of the pixel store that features are extracted from; empty in earlier versions.
    actual, gains, skipped: there once the run has finished; gains and skipped are empty in release 0.1.
    """

    requested: Recipe
    choices: tuple[Choice, ...]
    predicted: Forecast
    actual: ActualCosts | None = None
    machine: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    estimates: Estimates | None = None
    gains: tuple[PhaseGain, ...] = ()
    skipped: tuple[SkippedPhase, ...] = ()
    pixels: str = ""

    @property
    def run(self) -> str:
        """The identity of the run, which its checkpoints carry; empty in release 0.1."""
        return hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:16] if self.files else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {
            "requested": self.requested.model_dump(mode="json"),
            "choices": [asdict(choice) for choice in self.choices],
            "predicted": {**asdict(self.predicted), "seconds": self.predicted.seconds},
            "machine": dict(self.machine),
            "files": dict(self.files),
            "pixels": self.pixels,
        }
        if self.estimates:
            values["estimates"] = self.estimates.to_json()
        if self.actual:
            values["actual"] = asdict(self.actual)
            values["gains"] = [asdict(gain) for gain in self.gains]
            values["skipped"] = [asdict(phase) for phase in self.skipped]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PlanFile:
        """What `to_json` gave, or release 0.1, which wrote `asked`; raises `KeyError`, `TypeError` or `RecipeError`."""
        # Imported here because they import PyTorch, and a command first tells what is wrong with a run folder.
        from thaw.planning.costs import Forecast
        from thaw.planning.measurements import Choice
        from thaw.selection.estimates import Estimates
        from thaw.training.gain import PhaseGain
        from thaw.training.skipping import SkippedPhase

        return cls(
            requested=Recipe.from_values(values["asked"] if "asked" in values else values["requested"]),
            choices=tuple(Choice(**choice) for choice in values["choices"]),
            predicted=Forecast.from_json(values["predicted"]),
            actual=ActualCosts.from_json(values["actual"]) if "actual" in values else None,
            machine=dict(values.get("machine", {})),
            files=dict(values.get("files", {})),
            estimates=Estimates.from_json(values.get("estimates")),
            gains=tuple(PhaseGain.from_json(gain) for gain in values.get("gains", ())),
            skipped=tuple(SkippedPhase(**phase) for phase in values.get("skipped", ())),
            pixels=values.get("pixels", ""),
        )
