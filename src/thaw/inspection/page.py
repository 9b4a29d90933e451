"""`inspect.html` and `inspect.json`: the results of an inspection, with the images concerned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from markupsafe import Markup

from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.formats import percent
from thaw.html.environment import environment
from thaw.html.thumbnails import Gallery, Thumbnail, data_url
from thaw.inspection import charts
from thaw.inspection.duplicates import DuplicatePair
from thaw.inspection.findings import Finding, findings
from thaw.inspection.inspect import NO_LABEL, Inspection, class_indices
from thaw.inspection.label_errors import LabelError
from thaw.inspection.linear_probe import LinearProbe
from thaw.remote import shown

MAX_SHOWN, MAX_PAIRS, MAX_MAP_THUMBNAILS, MAX_FILE_KINDS = 24, 12, 500, 6
_THUMBNAIL, _MAP_THUMBNAIL = 150, 64


@dataclass(frozen=True)
class ClassRow:
    """A class: its colour, its images in each split, and all of them as a fraction of the largest class."""

    name: str
    colour: str
    counts: tuple[int, ...]
    fraction_of_largest: float


@dataclass(frozen=True)
class LegendEntry:
    """What the dots of a colour on the map are."""

    name: str
    colour: str


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    Attributes:
        sizes, modes: The most common image sizes and pixel modes, with their number of images.
        unreadable: (path, reason) of each unreadable file.
        sample: How many images the learning curve is measured on; `None` for all of them.
        legend: The classes on the map, and images without a label where there are any.
    """

    title: str
    images: int
    findings: tuple[Finding, ...]
    splits: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    galleries: tuple[Gallery, ...]
    stages: Markup
    sample: int | None
    curve: Markup
    map: Markup
    legend: tuple[LegendEntry, ...]
    backbone: str
    notes: tuple[str, ...]


def write_page(inspection: Inspection, pixels: PixelStore) -> str:
    """The page as one self-contained HTML file."""
    return environment().get_template("inspect.html").render(page=_page(inspection, pixels))


def to_json(inspection: Inspection) -> dict[str, Any]:
    """All results as plain values; images are named by their paths."""
    paths, classes, probe = inspection.manifest.column("path"), inspection.manifest.classes, inspection.probe

    def pairs(duplicates: Sequence[DuplicatePair]) -> list[dict[str, Any]]:
        return [{**asdict(pair), "first": paths[pair.first], "second": paths[pair.second]} for pair in duplicates]

    def with_path(item: Any) -> dict[str, Any]:
        values = asdict(item)
        return {"path": paths[values.pop("row")], **values}

    return {
        "root": shown(inspection.manifest.root),
        "backbone": inspection.backbone,
        "findings": [asdict(finding) for finding in findings(inspection)],
        "images": inspection.counts(),
        "unreadable": [{"path": path, "reason": reason} for path, reason in inspection.manifest.errors()],
        "quality_flags": [with_path(flag) for flag in inspection.quality_flags],
        "duplicates": pairs(inspection.duplicates),
        "leaks": [{**asdict(leak), "duplicates": pairs(leak.duplicates)} for leak in inspection.leaks],
        "similarity": asdict(inspection.similarity),
        "linear_probe": _probe(probe, classes) if probe else None,
        "label_errors": [
            {**with_path(error), "given": classes[error.given], "suggested": classes[error.suggested]}
            for error in inspection.label_errors
        ],
        "outliers": [with_path(outlier) for outlier in inspection.outliers],
        "learning_curve": asdict(inspection.curve) if inspection.curve else None,
    }


def _probe(probe: LinearProbe, classes: Sequence[str]) -> dict[str, Any]:
    """The accuracies of a linear head, and the images of each class that are not tested."""
    left_out = ("probabilities", "tested", "untested", *(("sample",) if probe.sample is None else ()))
    untested = {classes[label]: images for label, images in probe.untested.items()}
    return {**{key: value for key, value in vars(probe).items() if key not in left_out}, "untested": untested}


def _page(inspection: Inspection, pixels: PixelStore) -> Page:
    manifest, counts, splits = inspection.manifest, inspection.counts(), inspection.splits
    totals = {name: sum(by_split.values()) for name, by_split in counts.items()}
    sizes = zip(manifest.column("width"), manifest.column("height"), strict=True)
    stages, curve = inspection.similarity.stages, inspection.curve
    return Page(
        title=manifest.root.name or str(manifest.root),
        images=manifest.readable,
        findings=findings(inspection),
        splits=splits,
        classes=tuple(
            ClassRow(
                name=name,
                colour=charts.class_colour(index),
                counts=tuple(counts[name].get(split, 0) for split in splits),
                fraction_of_largest=totals[name] / (max(totals.values()) or 1),
            )
            for index, name in enumerate(manifest.classes)
        ),
        sizes=_most_common(f"{width} x {height}" for width, height in sizes if width),
        modes=_most_common(mode for mode in manifest.column("mode") if mode),
        unreadable=tuple(manifest.errors()),
        galleries=tuple(gallery for gallery in _galleries(inspection, pixels) if gallery.thumbnails),
        stages=Markup(charts.stage_bars(stages) if stages else ""),
        sample=inspection.probe.sample if inspection.probe else None,
        curve=Markup(charts.learning_curve(curve) if curve else ""),
        map=Markup(charts.scatter(_map_dots(inspection, pixels)) if inspection.map_points else ""),
        legend=_legend(inspection),
        backbone=inspection.backbone,
        notes=inspection.notes,
    )


def _most_common(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common(MAX_FILE_KINDS))


def _galleries(inspection: Inspection, pixels: PixelStore) -> list[Gallery]:
    """Every gallery, the empty ones too, the most severe first."""
    build, classes = _GalleryBuilder(inspection.manifest, pixels), inspection.manifest.classes
    conflicting = inspection.conflicting_labels
    is_conflicting, labels = set(conflicting), inspection.manifest.column("labels")

    def like_it(row: int) -> str:
        return "its class" if labels[row] else "images without a label"

    return [
        *(
            build.pairs(
                f"Leak between {leak.splits[0]} and {leak.splits[1]}",
                "The same image in both splits: metrics on the second split partly measure memorization.",
                leak.duplicates,
            )
            for leak in inspection.leaks
        ),
        build.pairs(
            "Duplicates with conflicting labels",
            "One image with two labels: at least one label is wrong, or the classes overlap.",
            conflicting,
        ),
        build.images(
            "Probable label errors",
            "A linear head that was not fitted on these images contradicts their labels; most likely errors first.",
            [(error.row, _contradiction(error, classes)) for error in inspection.label_errors],
        ),
        build.pairs(
            "Near-duplicates",
            "Identical files, and the same image recompressed, resized, brightened, flipped or rotated.",
            [pair for pair in inspection.duplicates if pair not in is_conflicting],
        ),
        build.images(
            "Outliers",
            "Images far from all others of their class: foreign objects, failed exposures, rare variants. The most "
            "unusual for their class come first.",
            [
                (one.row, f"{one.distance_ratio:.1f}x the median distance of {like_it(one.row)}")
                for one in inspection.outliers
            ],
        ),
        build.images(
            "Image quality",
            "Images that stand out from the set: dark, bright, blurred, empty or of an odd size.",
            [
                (flag.row, f"{flag.issue}: {flag.unit} {_number(flag.value)}, median {_number(flag.median)}")
                for flag in inspection.quality_flags
            ],
        ),
    ]


def _number(value: float) -> str:
    """A number with four digits, or a large one, such as that of pixels, with all of them."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class _GalleryBuilder:
    """Makes galleries of images of a manifest."""

    manifest: Manifest
    pixels: PixelStore

    def images(self, heading: str, description: str, captions: Sequence[tuple[int, str]]) -> Gallery:
        """A gallery of (row, caption)."""
        shown = tuple(self._thumbnail(row, caption) for row, caption in captions[:MAX_SHOWN])
        return Gallery(heading, description, shown, len(captions))

    def pairs(self, heading: str, description: str, duplicates: Sequence[DuplicatePair]) -> Gallery:
        """A gallery of pairs, identical files first, then by agreement."""
        shown = sorted(duplicates, key=lambda pair: (not pair.exact, -pair.correlation))[:MAX_PAIRS]
        thumbnails = tuple(
            self._thumbnail(row, _text_of(self._labels[row]) + (" (identical files)" if pair.exact else ""))
            for pair in shown
            for row in (pair.first, pair.second)
        )
        return Gallery(heading, description, thumbnails, len(duplicates), is_paired=True)

    def _thumbnail(self, row: int, caption: str) -> Thumbnail:
        return Thumbnail(self._paths[row], data_url(self.pixels.read(row), _THUMBNAIL), caption)

    @cached_property
    def _labels(self) -> list[list[str]]:
        return self.manifest.column("labels")

    @cached_property
    def _paths(self) -> list[str]:
        return self.manifest.column("path")


def _contradiction(error: LabelError, classes: Sequence[str]) -> str:
    return (
        f"labelled {classes[error.given]} ({percent(error.given_probability)}), "
        f"predicted {classes[error.suggested]} ({percent(error.suggested_probability)})"
    )


def _text_of(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "no label"


def _legend(inspection: Inspection) -> tuple[LegendEntry, ...]:
    indices = range(len(inspection.manifest.classes))
    entries = (LegendEntry(inspection.manifest.classes[index], charts.class_colour(index)) for index in indices)
    labels = inspection.manifest.column("labels")
    if all(labels[point.row] for point in inspection.map_points):
        return tuple(entries)
    return (*entries, LegendEntry("no label", charts.class_colour(NO_LABEL)))


def _map_dots(inspection: Inspection, pixels: PixelStore) -> list[charts.MapDot]:
    paths, labels = inspection.manifest.column("path"), inspection.manifest.column("labels")
    points = inspection.map_points
    classes = class_indices(inspection.manifest, [point.row for point in points])
    with_thumbnail = set(np.linspace(0, max(len(points) - 1, 0), min(MAX_MAP_THUMBNAILS, len(points))).astype(int))
    return [
        charts.MapDot(
            x=point.x,
            y=point.y,
            colour=charts.class_colour(int(classes[number])),
            title=f"{paths[point.row]}: {_text_of(labels[point.row])}",
            thumbnail=data_url(pixels.read(point.row), _MAP_THUMBNAIL) if number in with_thumbnail else "",
        )
        for number, point in enumerate(points)
    ]
