"""The best validation accuracy so far against time: a search, and a plain Optuna loop that trains from the images.

    python -m bench.optuna_peer split.csv --weights W --seconds 300 > peer.jsonl
    thaw search split.csv --set weights=W monitor=accuracy --time 300s
    python -m bench.search_curves runs/search-1 peer.jsonl --out curves.svg

Of the search the short and the full trials count, whose accuracy is on the same validation images as that of the loop.
Prints when each had its first answer and its last, and the test accuracy of the loop's best trial.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from bench.versus.curve import Point
from bench.versus.curve_drawing import Line, draw_curves
from thaw.run_folder.search_folder import SearchFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where the drawing is written (SVG)")
    options = parser.parse_args()
    # The loop also prints its epochs.
    lines = [json.loads(line) for line in options.peer.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    curves = {
        "thaw search": search_curve(SearchFolder(options.search)),
        "Optuna, PyTorch loop": best_so_far((line["seconds"], line["val"]) for line in lines if "trial" in line),
    }
    for name, curve in curves.items():
        (first, early), (last, late) = curve[0], curve[-1]
        print(f"{name}: {early:.1%} after {first:.0f} s, {late:.1%} after {last:.0f} s")
    if "test" in lines[-1]:
        print(f"the loop's best trial on test: {lines[-1]['test']:.1%}; its trials: {lines[-1]['trials']}")
    drawn = draw_curves([Line(name, [curve]) for name, curve in curves.items()])
    options.out.write_text(drawn, encoding="utf-8")


def search_curve(folder: SearchFolder) -> list[Point]:
    """The best accuracy on validation images, by the second of the search at which it was reached."""
    records = [record for record in folder.read_records() if record.level in ("short", "full") and record.is_usable]
    return best_so_far((record.ended, record.value or 0.0) for record in records)


def best_so_far(points: Iterable[Point]) -> list[Point]:
    """The points at which a value rises, and one at the end."""
    curve: list[Point] = []
    last = 0.0
    for seconds, value in sorted(points):
        last = seconds
        if not curve or value > curve[-1][1]:
            curve.append((seconds, value))
    return [*curve, (last, curve[-1][1])]


if __name__ == "__main__":
    main()
