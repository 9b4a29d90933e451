"""evaluation.json: metrics of the finished classifier on validation and test, its calibration and its decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from thaw.classifier.decision import Decision
from thaw.evaluation.calibration import Calibration
from thaw.metrics import Estimate

if TYPE_CHECKING:
    from thaw.evaluation.evaluate import Evaluation

_SPLITS = ("val", "test")


@dataclass(frozen=True)
class EvaluationFile:
    """The content of evaluation.json; `evaluations` has "val" and "test", as far as there are images of them."""

    evaluations: Mapping[str, Evaluation]
    calibration: Calibration
    decision: Decision

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{split: evaluation.to_json() for split, evaluation in self.evaluations.items()},
            "calibration": asdict(self.calibration),
            "decision": self.decision.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EvaluationFile:
        """What `to_json` gave, or release 0.1; raises `KeyError`, `TypeError` or `ValueError`."""
        # Imported here because it imports PyTorch, and a command first tells what is wrong with a run folder.
        from thaw.evaluation.evaluate import Evaluation

        return cls(
            evaluations={split: Evaluation.from_json(values[split]) for split in _SPLITS if split in values},
            calibration=_calibration(values["calibration"]),
            decision=Decision.from_json(values["decision"]),
        )


def _calibration(values: Mapping[str, Any]) -> Calibration:
    before, after = (
        {split: Estimate(**error) for split, error in values[name].items()} for name in ("before", "after")
    )
    return Calibration(values["temperature"], values["images"], before, after)
