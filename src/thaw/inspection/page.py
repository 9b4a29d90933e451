"""`inspect.html` and `inspect.json`: what an inspection found, with the pictures that it speaks of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from thaw.data.pixel_store import PixelStore
from thaw.html.environment import environment
from thaw.html.thumbnails import embedded
from thaw.inspection import charts
from thaw.inspection.findings import Finding, findings
from thaw.inspection.inspect import DuplicatePair, Inspection

MOST_SHOWN, MOST_PAIRS, MOST_ON_MAP = 24, 12, 500
_THUMBNAIL, _SPOT = 150, 64


@dataclass(frozen=True)
class Picture:
    """One picture with what is said of it."""

    source: str
    name: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under one heading; `pairs` go two by two. `total` counts those that are not shown too."""

    heading: str
    about: str
    pictures: tuple[Picture, ...]
    total: int
    pairs: bool = False


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""

    title: str
    summary: str
    findings: tuple[Finding, ...]
    splits: tuple[str, ...]
    classes: tuple[tuple[str, str, tuple[int, ...], float], ...]
    sizes: tuple[tuple[str, int], ...]
    modes: tuple[tuple[str, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    galleries: tuple[Gallery, ...]
    stages: Markup
    curve: Markup
    map: Markup
    backbone: str
    notes: tuple[str, ...]


def write_page(found: Inspection, pixels: PixelStore) -> str:
    """The page: one HTML file that asks for nothing else."""
    return environment().get_template("inspect.html").render(page=_page(found, pixels))


def to_json(found: Inspection) -> dict[str, Any]:
    """Everything that was found, rows by their paths."""
    paths, classes = found.manifest.column("path"), found.manifest.classes

    def pairs(duplicates: Sequence[DuplicatePair]) -> list[dict[str, Any]]:
        return [
            {"first": paths[pair.first], "second": paths[pair.second], "agreement": pair.agreement, "exact": pair.exact}
            for pair in duplicates
        ]

    probe = found.probe
    return {
        "root": str(found.manifest.root),
        "backbone": found.backbone,
        "findings": [asdict(finding) for finding in findings(found)],
        "images": found.counts(),
        "unreadable": [{"path": path, "reason": reason} for path, reason in found.manifest.errors()],
        "flags": [
            {"path": paths[flag.row], **{k: v for k, v in asdict(flag).items() if k != "row"}} for flag in found.flags
        ],
        "duplicates": pairs(found.duplicates),
        "leaks": [{**asdict(leak), "twins": pairs(leak.duplicates)} for leak in found.leaks],
        "similarity": asdict(found.similarity),
        "probe": {k: v for k, v in vars(probe).items() if k != "probabilities"} if probe else None,
        "suspects": [
            {
                "path": paths[item.row],
                "label": classes[item.given],
                "label_probability": item.given_probability,
                "rather": classes[item.suggested],
                "rather_probability": item.suggested_probability,
            }
            for item in found.label_errors
        ],
        "outliers": [{"path": paths[item.row], "times": item.times} for item in found.outliers],
        "learning_curve": asdict(found.curve) if found.curve else None,
    }


def _page(found: Inspection, pixels: PixelStore) -> Page:
    manifest, counts, splits = found.manifest, found.counts(), found.splits
    largest = max((sum(count.values()) for count in counts.values()), default=0) or 1
    readable = sum(sum(count.values()) for count in counts.values())
    return Page(
        title=manifest.root.name or str(manifest.root),
        summary=f"{readable:,} readable pictures in {len(manifest.classes)} classes",
        findings=findings(found),
        splits=splits,
        classes=tuple(
            (
                name,
                charts.HUES[index % len(charts.HUES)],
                tuple(counts[name].get(split, 0) for split in splits),
                sum(counts[name].values()) / largest,
            )
            for index, name in enumerate(manifest.classes)
        ),
        sizes=_most_common([f"{w} x {h}" for w, h in _both(found, "width", "height") if w]),
        modes=_most_common([mode for mode in manifest.column("mode") if mode]),
        unreadable=tuple(manifest.errors()),
        galleries=tuple(gallery for gallery in _galleries(found, pixels) if gallery.pictures),
        stages=Markup(charts.stage_bars(found.similarity.stages)) if found.similarity.stages else Markup(""),
        curve=Markup(charts.learning_curve(found.curve)) if found.curve else Markup(""),
        map=Markup(charts.scatter(_spots(found, pixels))),
        backbone=found.backbone,
        notes=found.notes,
    )


def _galleries(found: Inspection, pixels: PixelStore) -> list[Gallery]:
    classes, listed = found.manifest.classes, []
    for leak in found.leaks:
        heading = f"In {leak.splits[0]} and in {leak.splits[1]}"
        about = "The same picture on both sides: what is measured on the second is partly remembered, not learned."
        listed.append(_pairs(heading, about, leak.duplicates, found, pixels))
    about = "One picture, two labels: at least one of them is wrong, or the classes overlap."
    listed.append(_pairs("Duplicates under different labels", about, found.conflicting_labels, found, pixels))
    label_errors = [
        (
            item.row,
            f"labelled {classes[item.given]} ({item.given_probability:.0%}), "
            f"looks like {classes[item.suggested]} ({item.suggested_probability:.0%})",
        )
        for item in found.label_errors
    ]
    about = "A head that never saw these pictures disagrees with their labels; the surest first."
    listed.append(_gallery("Labels that look wrong", about, label_errors, found, pixels))
    rest = [pair for pair in found.duplicates if pair not in set(found.conflicting_labels)]
    about = "Equal files, and the same picture recompressed, resized, brightened, mirrored or turned."
    listed.append(_pairs("Duplicates", about, rest, found, pixels))
    outliers = [(item.row, f"{item.times:.1f}x as far from its class as is usual") for item in found.outliers]
    about = "Pictures far from all others of their class: foreign objects, failed exposures, rare kinds."
    listed.append(_gallery("Unlike the rest of their class", about, outliers, found, pixels))
    flags = [(flag.row, f"{flag.kind}: {flag.value:.4g} {flag.unit}, usual {flag.usual:.4g}") for flag in found.flags]
    listed.append(
        _gallery("Dark, bright, blurred, empty, odd", "Beside what is usual in this set.", flags, found, pixels)
    )
    return listed


def _gallery(
    heading: str, about: str, items: Sequence[tuple[int, str]], found: Inspection, pixels: PixelStore
) -> Gallery:
    shown = tuple(_picture(row, caption, found, pixels) for row, caption in items[:MOST_SHOWN])
    return Gallery(heading, about, shown, len(items))


def _pairs(
    heading: str, about: str, duplicates: Sequence[DuplicatePair], found: Inspection, pixels: PixelStore
) -> Gallery:
    surest = sorted(duplicates, key=lambda pair: (not pair.exact, -pair.agreement))[:MOST_PAIRS]
    labels = found.manifest.column("labels")
    shown = tuple(
        _picture(row, ", ".join(labels[row]) + (" (equal files)" if pair.exact else ""), found, pixels)
        for pair in surest
        for row in (pair.first, pair.second)
    )
    return Gallery(heading, about, shown, len(duplicates), pairs=True)


def _picture(row: int, caption: str, found: Inspection, pixels: PixelStore) -> Picture:
    path = found.manifest.table.column("path")[row].as_py()
    return Picture(embedded(pixels.read(row), _THUMBNAIL), path, caption)


def _spots(found: Inspection, pixels: PixelStore) -> list[charts.Spot]:
    paths, labels = found.manifest.column("path"), found.manifest.column("labels")
    place = {name: index for index, name in enumerate(found.manifest.classes)}
    pictured = set(np.linspace(0, max(len(found.places) - 1, 0), min(MOST_ON_MAP, len(found.places))).astype(int))
    return [
        charts.Spot(
            spot.x,
            spot.y,
            place[labels[spot.row][0]] if labels[spot.row] else 0,
            f"{paths[spot.row]}: {', '.join(labels[spot.row])}",
            embedded(pixels.read(spot.row), _SPOT) if number in pictured else "",
        )
        for number, spot in enumerate(found.places)
    ]


def _most_common(values: Sequence[str], shown: int = 6) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(values).most_common(shown))


def _both(found: Inspection, one: str, other: str) -> list[tuple[int, int]]:
    return list(zip(found.manifest.column(one), found.manifest.column(other), strict=True))
