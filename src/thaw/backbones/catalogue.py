"""The catalogue of networks: their facts, name resolution and suggestions for misspelt names."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from thaw.backbones import starter
from thaw.errors import BackboneError

ALIASES = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "inceptionv3": "inception_v3",
    "xception": "legacy_xception",
    "densenet121": "densenet121",
    "mobilenetv2": "mobilenetv2_100",
    "mobilenetv3small": "mobilenetv3_small_100",
    "mobilenetv3large": "mobilenetv3_large_100",
    "convnexttiny": "convnext_tiny",
    **{f"efficientnetb{size}": f"efficientnet_b{size}" for size in range(6)},
    # Only the TensorFlow weights of these two were ever published.
    **{f"efficientnetb{size}": f"tf_efficientnet_b{size}" for size in (6, 7)},
}
"""Names of Keras applications in lower case without separators, and the equivalent timm networks."""


@dataclass(frozen=True)
class Entry:
    """One network at its default input size.

    Attributes:
        name: Thaw's name of the network.
        family: Its family.
        parameters_m: Millions of parameters, without a classifier.
        gmacs: 10^9 multiply-adds for one image, without a classifier.
        input_size: Side of the square input in pixels.
        top1: ImageNet accuracy of the published weights in percent at `input_size`, from timm's
            results/results-imagenet.csv; `None` if unknown.
        source: Hub repository or URL of the published weights, `bundled` for weights in the package, empty if there are
            none.
    """

    name: str
    family: str
    parameters_m: float
    gmacs: float
    input_size: int
    top1: float | None
    source: str

    @property
    def architecture(self) -> str:
        """timm's name of the network."""
        return starter.ARCHITECTURE if self.name == starter.NAME else self.name


@cache
def entries() -> tuple[Entry, ...]:
    """All networks of the catalogue, by family and size."""
    text = files("thaw.backbones").joinpath("catalogue.csv").read_text(encoding="utf-8")
    return tuple(
        Entry(
            name=row["name"],
            family=row["family"],
            parameters_m=float(row["parameters_m"]),
            gmacs=float(row["gmacs"]),
            input_size=int(row["input_size"]),
            top1=float(row["top1"]) if row["top1"] else None,
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def find(words: str, more: Iterable[Entry] = ()) -> list[Entry]:
    """Entries of the catalogue, and of `more`, whose name or family contains every word, ignoring case."""
    wanted = words.lower().split()
    return [entry for entry in (*entries(), *more) if all(word in _searchable_text(entry) for word in wanted)]


def look_up(name: str) -> Entry:
    """The entry of a network, by any name that `resolve_name` accepts; raises `BackboneError`."""
    wanted = resolve_name(name)
    for entry in entries():
        if entry.name == wanted:
            return entry
    hint = suggest(name, [entry.name for entry in entries()])
    raise BackboneError(f"backbone {name!r}: not in the catalogue; {hint}")


def resolve_name(name: str) -> str:
    """The timm name for names such as `ResNet50` or `EfficientNetB0`; other names unchanged."""
    if any(entry.name == name for entry in entries()):
        return name
    return ALIASES.get(without_separators(name), name)


def without_separators(name: str) -> str:
    """A name in lower case without `_` and `-`, by which spellings are compared."""
    return name.lower().replace("_", "").replace("-", "")


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name."""
    near = difflib.get_close_matches(resolve_name(name.lower()), list(known), n=3)
    return f"did you mean {' or '.join(near)}?" if near else "`thaw models` lists all networks"


def _searchable_text(entry: Entry) -> str:
    return f"{entry.name} {entry.family}".lower()
