import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.versus.__main__ import main
from bench.versus.curve import Curve, seconds_to
from bench.versus.curve_drawing import Line, draw_curves
from bench.versus.rounds import THAW, Round, curves_of, fastest, rounds_of
from bench.versus.table import INTRODUCTION, with_section
from bench.versus.time_to_accuracy import HEADING, draw

PAGE = Path(__file__).parents[2] / "docs" / "benchmark.md"


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


def record(peer: str, seed: int, *points: tuple[float, float], table: str = "solar") -> dict:
    return {
        "kind": "curve",
        "peer": peer,
        "title": peer,
        "job": "net:both",
        "table": table,
        "limit": None,
        "epochs_wanted": [10, 10],
        "seed": seed,
        "notes": [],
        "curve": [list(point) for point in points],
    }


def test_the_time_of_tests_is_in_no_point() -> None:
    clock = Clock()
    curve = Curve(clock)

    def accuracy(value: float) -> Callable[[], float]:
        def test() -> float:
            clock.pass_time(100.0)
            return value

        return test

    clock.pass_time(7.0)
    assert curve.test(accuracy(0.5)) == 0.5
    clock.pass_time(3.0)
    curve.test(accuracy(0.75))
    curve.test(accuracy(0.7))
    assert curve.points == [(7.0, 0.5), (10.0, 0.75), (10.0, 0.7)]
    assert clock.now - curve.uncounted == 10.0


def test_an_accuracy_is_reached_when_it_first_is() -> None:
    points = [(5.0, 0.6), (9.0, 0.8), (12.0, 0.7), (20.0, 0.9)]
    assert seconds_to(points, 0.8) == 9.0
    assert seconds_to(points, 0.81) == 20.0
    assert seconds_to(points, 0.91) == math.inf


def test_an_accuracy_in_single_precision_is_the_same_accuracy() -> None:
    assert seconds_to([(5.0, 552 / 656)], 0.8414634466171265) == 5.0
    assert seconds_to([(5.0, 551 / 656)], 0.8414634466171265) == math.inf


def test_a_round_that_never_reaches_the_accuracy_has_ratio_0() -> None:
    peer = [(50.0, 0.9), (100.0, 0.8)]
    reached, never = Round(peer, [(20.0, 0.8), (40.0, 0.7)]), Round(peer, [(20.0, 0.7), (40.0, 0.79)])
    assert (reached.reached, reached.ratio, reached.ratio_of_runs) == (20.0, 5.0, 2.5)
    assert (never.reached, never.ratio, never.ratio_of_runs) == (math.inf, 0.0, 2.5)


def test_only_rounds_that_both_have_run_are_compared_and_a_repeated_run_counts_once() -> None:
    curves = curves_of(
        [
            record(THAW, 0, (10.0, 0.9)),
            record(THAW, 1, (11.0, 0.9)),
            record("slow", 0, (300.0, 0.9)),
            record("slow", 0, (200.0, 0.9)),
            record("fast", 1, (100.0, 0.9)),
            record("fast", 2, (1.0, 0.9)),
            record("alone", 2, (1.0, 0.9)),
            {**record("broken", 0), "failure": "ended with 1"},
        ]
    )
    assert "broken" not in curves
    assert rounds_of(curves, "slow") == [Round([(200.0, 0.9)], [(10.0, 0.9)])]
    assert fastest(curves) == "fast"
    assert fastest({"fast": curves["fast"]}) is None


@pytest.fixture
def records() -> Iterator[list[dict]]:
    yield [
        record(THAW, 0, (20.0, 0.8), (40.0, 0.9)),
        record(THAW, 1, (25.0, 0.85), (50.0, 0.9)),
        record(THAW, 2, (30.0, 0.6), (40.0, 0.7)),
        *(record("fast", seed, (50.0, 0.7), (100.0, 0.8)) for seed in range(3)),
        *(record("slow", seed, (500.0, 0.95)) for seed in range(3)),
        record(THAW, 0, (10.0, 0.9), table="steel"),
        record("fast", 0, (100.0, 0.9), table="steel"),
    ]


def test_the_page_says_how_the_rounds_differ_and_the_median_over_sets(records: list[dict], tmp_path) -> None:
    page = draw(records, tmp_path)
    medians = "100.0 s (100.0 s to 100.0 s) | 80.0% (80.0% to 80.0%) | 25.0 s (20.0 s to never) | **4.0 (0.0 to 5.0)**"
    assert f"| solar | fast | {medians} |" in page
    assert "| steel | fast | 100.0 s | 90.0% | 10.0 s | **10.0** | 10.0 s | 90.0% | 10.0 | 1 |" in page
    assert "The median ratio over 2 sets is 7.0." in page
    drawn = {file.name: file.read_text() for file in tmp_path.glob("*.svg")}
    assert len(drawn) == 2
    assert all(f"({name})" in page for name in drawn)


def test_a_page_keeps_its_other_sections(records: list[dict]) -> None:
    first = with_section("# Benchmark\n\nText.\n\n# Growth\n\nMore.\n", f"{HEADING}\n\nold\n\n## Part\n")
    assert first == f"# Benchmark\n\nText.\n\n# Growth\n\nMore.\n\n{HEADING}\n\nold\n\n## Part\n"
    middle = f"# Benchmark\n\n{HEADING}\n\nold\n\n## Part\n\n# Growth\n"
    assert with_section(middle, f"{HEADING}\n\nnew\n") == f"# Benchmark\n\n{HEADING}\n\nnew\n\n# Growth\n"
    assert with_section("", f"{HEADING}\n") == f"{HEADING}\n"


@pytest.mark.parametrize("words", [[], ["--time-to-accuracy"]])
def test_writing_a_section_into_the_page_keeps_what_is_below_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "benchmark.md"
    shutil.copy(PAGE, page)
    sections = re.split("^(?=# )", PAGE.read_text(), flags=re.MULTILINE)
    monkeypatch.setattr(sys, "argv", ["versus", *words, "--draw", "--envs", str(tmp_path / "envs"), "--out", str(page)])
    main()
    written = re.split("^(?=# )", page.read_text(), flags=re.MULTILINE)
    titles = [section.partition("\n")[0] for section in written]
    changed = [title for title, one, other in zip(titles, sections, written, strict=True) if one != other]
    assert changed == [(HEADING if words else INTRODUCTION).partition("\n")[0]]
    by_hand = {
        "# Accuracy",
        "# Where the seconds of a short run go",
        "# A frozen part in int8",
        "# Which images to label",
    }
    assert by_hand <= {*titles} - {*changed}


def test_every_run_is_drawn_with_the_name_of_its_tool() -> None:
    points = [(10.0, 0.5), (20.0, 0.5)]
    svg = draw_curves([Line("fastai `fine_tune`", [points, points]), Line("a < b", [points])])
    assert "fastai fine_tune" in svg and "a &lt; b" in svg
    assert svg.count('stroke-width="1.8"') == 3
