"""Write data sets as CSV (path, label, split) whose test images come from groups that training does not see.

    python -m bench.group_splits clusters steel/ out.csv --seed 0
    python -m bench.group_splits prefix insects/ out.csv --seed 0 --digits 2
    python -m bench.group_splits cells elpv/ out.csv

clusters: one fifth of ten clusters of similar images, in the features of the starter; what classes differ in is removed
first. prefix: a quarter of the groups of images whose names begin with the same digits. cells: solar cells of the ELPV
set, trained on monocrystalline and tested on polycrystalline ones. Seeds rotate what is left out.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.model_selection import StratifiedGroupKFold

import thaw
from bench.elpv_csv import read_rows
from thaw.backbones import build
from thaw.cache import cache_folder
from thaw.data.prepare import DataPreparation
from thaw.device import CPU
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import pooled_features
from thaw.progress import NullReporter

CLUSTERS, CLUSTER_FOLDS, PREFIX_FOLDS = 10, 5, 4


def by_clusters(data: Path, seed: int) -> list[tuple[str, str, str]]:
    """(path, label, split) of each image, with clusters of similar images in one split."""
    recipe = thaw.Recipe(backbone="starter")
    backbone = build(recipe)
    preparation = DataPreparation(recipe.decode, recipe.split, None, cache_folder(), NullReporter().bar)
    prepared = preparation.prepare(thaw.Dataset.open(data), backbone.facts.pixels)
    manifest = prepared.manifest
    rows = np.flatnonzero(np.array(manifest.column("status")) == "ok")
    frozen = FrozenPart(backbone, CPU, "openvino-fp32")
    values = pooled_features(
        prepared.pixels, rows, frozen, 0, FeatureCache(cache_folder(), "float16"), lambda done, total: None
    )
    targets = manifest.targets()[rows]
    values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-3)
    for label in np.unique(targets):
        values[targets == label] -= values[targets == label].mean(axis=0)
    groups = KMeans(CLUSTERS, n_init=2, random_state=0).fit_predict(values)
    paths = [str(manifest.file(int(row)).resolve()) for row in rows]
    labels = [manifest.classes[target] for target in targets]
    return with_splits(paths, labels, groups, CLUSTER_FOLDS, seed)


def by_prefix(data: Path, seed: int, digits: int) -> list[tuple[str, str, str]]:
    """(path, label, split) of each image, with images whose names begin alike in one split."""
    manifest = thaw.Dataset.open(data).manifest
    paths = [str(file.resolve()) for file in manifest.files()]
    labels = [names[0] for names in manifest.column("labels")]
    groups = np.unique([Path(path).name[:digits] for path in paths], return_inverse=True)[1]
    return with_splits(paths, labels, groups, PREFIX_FOLDS, seed)


def by_cells(data: Path) -> list[tuple[str, str, str]]:
    """(path, label, split) of each solar cell, with the polycrystalline ones in test."""
    return [(path, label, "train" if cell == "mono" else "test") for path, label, cell in read_rows(data)]


def with_splits(
    paths: list[str], labels: list[str], groups: np.ndarray, folds: int, seed: int
) -> list[tuple[str, str, str]]:
    """(path, label, split): one fold of the groups is the test set, which one depends on the seed."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed // folds)
    _, test = list(splitter.split(paths, labels, groups))[seed % folds]
    in_test = set(test.tolist())
    return [(path, labels[row], "test" if row in in_test else "train") for row, path in enumerate(paths)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["clusters", "prefix", "cells"])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digits", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.kind == "clusters":
        rows = by_clusters(arguments.data, arguments.seed)
    elif arguments.kind == "prefix":
        rows = by_prefix(arguments.data, arguments.seed, arguments.digits)
    else:
        rows = by_cells(arguments.data)
    with arguments.out.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "split"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
