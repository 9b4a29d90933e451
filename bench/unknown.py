"""How many images of a class that training never saw are flagged for review.

    python -m bench.unknown IMAGES --weights mobilenetv2_100.safetensors --work FOLDER

For each class of a folder of class folders: train on the other classes, then predict the test images of these and all
images of the class that was excluded. Prints the fractions flagged as out-of-distribution, as ambiguous, and as either,
on both sets; then the means over the classes.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
from pathlib import Path

import thaw
from thaw.data.manifest import Manifest
from thaw.data.walk import Omitted, images_below
from thaw.formats import percent
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder


def flagged_fractions(predictions: list[thaw.Prediction]) -> tuple[float, float, float]:
    """Fractions flagged as out-of-distribution, as ambiguous, and as either."""
    readable = [item for item in predictions if item.status == "ok"]
    return (
        statistics.mean(item.out_of_distribution for item in readable),
        statistics.mean(item.ambiguous for item in readable),
        statistics.mean(bool(item.review) for item in readable),
    )


def images_in(folder: Path) -> list[Path]:
    return [folder / name for name in images_below(folder, Omitted())]


def write_table_without(images: Path, excluded: str, table: Path) -> None:
    """Write the table of all other classes."""
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        for folder in sorted(path for path in images.iterdir() if path.is_dir() and path.name != excluded):
            writer.writerows([file.resolve(), folder.name] for file in images_in(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="published")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strategy", default="head")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in sorted(path.name for path in arguments.images.iterdir() if path.is_dir()):
        table, runs = arguments.work / f"without-{name}.csv", arguments.work / f"runs-{name}"
        write_table_without(arguments.images, name, table)
        shutil.rmtree(runs, ignore_errors=True)
        recipe = thaw.Recipe(weights=arguments.weights, strategy=arguments.strategy)
        classifier = thaw.finetune(thaw.Dataset.open(table), recipe, runs, reporter=NullReporter())
        manifest = Manifest.read(RunFolder(runs / "train-1").manifest)
        test_images = [manifest.file(int(row)) for row in manifest.indices("test")]
        known = flagged_fractions(thaw.predict(classifier, test_images))
        unknown = flagged_fractions(thaw.predict(classifier, images_in(arguments.images / name)))
        rows.append((*known, *unknown))
        fractions = "  ".join(map(percent, rows[-1]))
        print(f"{name}: out-of-distribution, ambiguous, either, on known then unknown classes: {fractions}", flush=True)
    print("mean: " + "  ".join(percent(statistics.mean(column)) for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
