"""What becomes of images of a class that training never saw: how many go to a person.

    python -m bench.unknown IMAGES --weights mobilenetv2_100.safetensors --work FOLDER

For each class of a folder of class folders: train on the others, then predict its images, and those of the test split
of the others. Prints the share that is called unlike training, the share that is unsure (not one candidate), and
either of them, on both; then the means.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
from pathlib import Path

import thaw
from thaw.data.layouts import images_under
from thaw.data.manifest import Manifest
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder


def fractions(predictions: list[thaw.Prediction]) -> tuple[float, float, float]:
    """Unlike, unsure, and either."""
    read = [item for item in predictions if item.status == "ok"]
    return (
        statistics.mean(item.out_of_distribution for item in read),
        statistics.mean(item.ambiguous for item in read),
        statistics.mean(bool(item.review) for item in read),
    )


def without(images: Path, left_out: str, table: Path) -> None:
    """Write the table of all other classes."""
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        for folder in sorted(path for path in images.iterdir() if path.is_dir() and path.name != left_out):
            writer.writerows([file.resolve(), folder.name] for file in images_under(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="published")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strategy", default="head")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in sorted(path.name for path in asked.images.iterdir() if path.is_dir()):
        table, runs = asked.work / f"without-{name}.csv", asked.work / f"runs-{name}"
        without(asked.images, name, table)
        shutil.rmtree(runs, ignore_errors=True)
        recipe = thaw.Recipe(weights=asked.weights, strategy=asked.strategy)
        classifier = thaw.finetune(thaw.Dataset.open(table), recipe, runs, reporter=NullReporter())
        manifest = Manifest.read(RunFolder(runs / "train-1").manifest)
        known = fractions(thaw.predict(classifier, [manifest.file(int(row)) for row in manifest.indices("test")]))
        strange = fractions(thaw.predict(classifier, list(images_under(asked.images / name))))
        rows.append((*known, *strange))
        figures = "  ".join(f"{value:.1%}" for value in rows[-1])
        print(f"{name}: known unlike, unsure, either; never seen unlike, unsure, either: {figures}", flush=True)
    print("mean: " + "  ".join(f"{statistics.mean(column):.1%}" for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
