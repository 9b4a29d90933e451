"""The networks that Thaw lists: facts for people, names as people write them, "did you mean"."""

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
"""Names of the Keras applications, without case and separators, and the timm networks that they are."""


@dataclass(frozen=True)
class Entry:
    """One network, at the input size that Thaw gives it by default.

    parameters_m: millions of parameters, gmacs: 10^9 multiply-adds of one image; both without a classifier.
    input_size: side of the square, in pixels. source: repository on the Hub, or address, of the published
    weights; `bundled` where they travel with Thaw; empty where there are none. top1: their ImageNet accuracy
    in percent at `input_size`, from timm's results/results-imagenet.csv; `None` where none is published.
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
        """What timm calls the network."""
        return starter.ARCHITECTURE if self.name == starter.NAME else self.name


@cache
def entries() -> tuple[Entry, ...]:
    """Every network of the catalogue, by family and size."""
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


def find(words: str) -> list[Entry]:
    """Entries whose name or family contains every word, in any case."""
    wanted = words.lower().split()
    return [entry for entry in entries() if all(word in _searched(entry) for word in wanted)]


def look_up(name: str) -> Entry:
    """The entry of a network, by any name that `resolve_name` knows; raises `BackboneError`."""
    wanted = resolve_name(name)
    for entry in entries():
        if entry.name == wanted:
            return entry
    hint = suggest(name, [entry.name for entry in entries()])
    raise BackboneError(f"backbone {name!r}: not in the catalogue; {hint}")


def resolve_name(name: str) -> str:
    """The timm name that a person means by `ResNet50` or `EfficientNetB0`; any other name as it is."""
    if any(entry.name == name for entry in entries()):
        return name
    return ALIASES.get(name.lower().replace("_", "").replace("-", ""), name)


def suggest(name: str, known: Iterable[str]) -> str:
    """The hint for a name that does not exist."""
    near = difflib.get_close_matches(resolve_name(name.lower()), list(known), n=3)
    return f"did you mean {' or '.join(near)}?" if near else "`thaw models` lists what there is"


def _searched(entry: Entry) -> str:
    return f"{entry.name} {entry.family}".lower()
