"""Write a split of the ELPV solar cells (github.com/zae-bayern/elpv-dataset) as CSV: path, label, split.

Label: defective if the given probability of a defect is at least 0.5. A quarter of the images is the test set and 15 %
of the rest the validation set, both stratified by label and cell type.

    python bench/elpv_csv.py FOLDER out.csv --seed 0

FOLDER contains labels.csv (file, probability, cell type; separated by spaces) and the images it lists.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sklearn.model_selection import train_test_split

TEST_FRACTION, VAL_FRACTION = 0.25, 0.15


def read_rows(folder: Path) -> list[tuple[str, str, str]]:
    """(absolute path, label, cell type) of each image."""
    rows = []
    for line in (folder / "labels.csv").read_text().splitlines():
        file, probability, cell = line.split()
        label = "defective" if float(probability) >= 0.5 else "sound"
        rows.append((str((folder / file).resolve()), label, cell))
    return rows


def split_rows(rows: list[tuple[str, str, str]], seed: int) -> list[tuple[str, str, str]]:
    """(path, label, split) of each image."""
    strata = [row[1:] for row in rows]
    rest, test = train_test_split(rows, test_size=TEST_FRACTION, random_state=seed, stratify=strata)
    strata = [row[1:] for row in rest]
    train, val = train_test_split(rest, test_size=VAL_FRACTION, random_state=seed, stratify=strata)
    parts = {"train": train, "val": val, "test": test}
    return sorted((path, label, split) for split, part in parts.items() for path, label, _ in part)


def write_split(about: str | None, read_rows: Callable[[Path], list[tuple[str, str, str]]]) -> None:
    """Read the images of the folder that the command line names, write their split, and print its counts."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = split_rows(read_rows(arguments.folder), arguments.seed)
    with arguments.out.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    for (split, label), count in sorted(Counter((split, label) for _, label, split in rows).items()):
        print(f"{split:6} {label:24} {count}")


if __name__ == "__main__":
    write_split(__doc__, read_rows)
