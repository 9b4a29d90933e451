"""A measured question: its options and their scores, which one is taken, and the sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.formats import percent, points
from thaw.selection.scores import Gain, compare


@dataclass(frozen=True)
class Option:
    """One value of a setting.

    Attributes:
        value: The value, as the plan shows it.
        scores: (N,) scores of the tested images, whose mean is the monitored metric.
        remark: What else is known about it, such as its accuracy where another metric is monitored.
    """

    value: str
    scores: np.ndarray
    remark: str = ""

    @property
    def mean(self) -> float:
        """The monitored metric."""
        return float(self.scores.mean())


@dataclass(frozen=True)
class Question:
    """The options of one setting, from simple to complex, all tested on the same images.

    Attributes:
        setting: The setting, by its key in the recipe.
        metric: Title of the monitored metric; `kind` is fraction or loss.
        options: In order.
        groups: (N,) int, of the tested images; the standard error is over them.
        tested: How they were tested, in words.
    """

    setting: str
    metric: str
    options: tuple[Option, ...]
    groups: np.ndarray
    tested: str
    is_fraction: bool = True

    def gain(self, option: int, over: int) -> Gain:
        """The gain of one option over another."""
        return compare(self.options[option].scores, self.options[over].scores, self.groups)

    def best(self) -> int:
        """The option with the best mean, the simplest of equal ones."""
        return max(range(len(self.options)), key=lambda index: (round(self.options[index].mean, 9), -index))

    def simplest_good(self) -> int:
        """The simplest option within one standard error of the best (the rule of Breiman et al. 1984)."""
        best = self.best()
        return next(index for index in range(best + 1) if index == best or not self.gain(best, index).exceeds_noise)

    def better_than(self, reference: int) -> int:
        """The best option if it gains more than one standard error over a reference, else the reference."""
        best = self.best()
        return best if self.gain(best, reference).exceeds_noise else reference

    def reason(self, chosen: int) -> str:
        """Each other option with its gain over the chosen one, and its standard error."""
        others = [
            f"{option.value} {self._gain_text(self.gain(index, chosen))}{_in_brackets(option.remark)}"
            for index, option in enumerate(self.options)
            if index != chosen
        ]
        option = self.options[chosen]
        own = f"{self.metric} {self._value_text(option.mean)}{_in_brackets(option.remark)}, {self.tested}"
        return f"{own}; compared with it: {', '.join(others)}" if others else own

    def _value_text(self, value: float) -> str:
        return percent(value) if self.is_fraction else f"{-value:.4f}"

    def _gain_text(self, gain: Gain) -> str:
        if self.is_fraction:
            return f"{points(gain.value)} ± {100 * gain.standard_error:.1f} points"
        return f"{-gain.value:+.4f} ± {gain.standard_error:.4f}"


def _in_brackets(remark: str) -> str:
    return f" ({remark})" if remark else ""
