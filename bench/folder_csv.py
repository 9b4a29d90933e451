"""Write a split of a folder with one folder per class as CSV: path, label, split.

The label of an image is the name of the folder that it lies in, at any depth. Of files with equal content only the
first is taken. A quarter of the images is the test set and 15 % of the rest the validation set, stratified by label.

    python -m bench.folder_csv FOLDER out.csv --seed 0
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.elpv_csv import write_split

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def read_rows(folder: Path) -> list[tuple[str, str, str]]:
    """(absolute path, label, nothing more to stratify by) of each image."""
    rows, seen = [], set()
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in SUFFIXES:
            continue
        digest = hashlib.sha256(file.read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            rows.append((str(file.resolve()), file.parent.name, ""))
    return rows


if __name__ == "__main__":
    write_split(__doc__, read_rows)
