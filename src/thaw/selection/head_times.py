"""Whether there is time for heads of many classes, which take minutes; of few classes they take seconds, unasked."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from thaw.recipe import Task
from thaw.selection.budget import Budget
from thaw.selection.logistic import predicted_seconds
from thaw.selection.sample import MANY_CLASSES, Sample


@dataclass(frozen=True)
class HeadTimes:
    """What heads on a sample should take, and the time for them.

    Attributes:
        images: Of the sample.
        budget: The time.
        seconds_per_weight: What fitting takes for each image and weight of a head; 0 for few classes.
        left_out: The questions that there was no time for.
    """

    images: int
    budget: Budget
    seconds_per_weight: float = 0.0
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, sample: Sample, width: int, task: Task, seconds: float) -> HeadTimes:
        """Those of a sample, measured where it has many classes; without a limit where it does not.

        Args:
            sample: Its images and classes.
            width: Features that a head takes.
            task: What the head tells apart.
            seconds: How long all heads may take, from now on.
        """
        images, classes = len(sample.rows), sample.classes
        if classes <= MANY_CLASSES:
            return cls(images, Budget(inf))
        budget, rank = Budget(seconds), min(width, images)
        found = predicted_seconds(images, rank, sample.most_folds, classes, task)
        return cls(images, budget, found / (images * rank * sample.most_folds))

    def seconds(self, folds: int, *widths: int) -> float:
        """What heads on that many features each should take, in some folds."""
        return self.seconds_per_weight * self.images * folds * sum(min(width, self.images) for width in widths)

    def allow(self, question: str, seconds: float) -> bool:
        """Whether there is time for a question; one that there is none for is remembered as left out."""
        allowed = self.budget.allows(seconds)
        if not allowed:
            self.left_out.append(question)
        return allowed
