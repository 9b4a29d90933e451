"""The bundle: a finished classifier as a folder of safetensors, JSON and text, without code or pickles.

    model.safetensors   the backbone, and a linear head on the last stage; tensors have timm's names
    head.safetensors    any other head: with hidden layers, or on all stages
    config.json         architecture, preprocessing and classes as timm and the Hub read them; `thaw` holds the rest
    labels.txt          one class per line, in the order of the outputs
    review.safetensors  features of training images for out-of-distribution detection, if any
    golden/             a few images with the probabilities that the bundle must reproduce
    SHA256SUMS          checksums of all other files, in the format of `sha256sum`

It is written to a temporary folder, checked on its golden images from file bytes to probabilities, and only then
renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save as bytes_of_arrays
from safetensors.torch import load_file
from torch import Tensor

from thaw import atomic
from thaw.backbones import rebuild
from thaw.backbones.facts import Facts
from thaw.backbones.int8 import packed, unpacked
from thaw.bundle_path import CONFIG, MODEL, labels_in
from thaw.checksums import SUMS, listed_sums, sha256_of
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.classifier.decision import Decision
from thaw.classifier.review import ReviewPolicy
from thaw.errors import BundleError
from thaw.formats import count
from thaw.golden import certify, write_golden
from thaw.marker import MARKER, mark
from thaw.recipe import DecodeSettings, HeadSettings
from thaw.tensors import bytes_of_tensors
from thaw.version import __version__
from thaw.writing import check_new

FORMAT, ALL_STAGES_FORMAT, INT8_FORMAT, MANY_COSTS_FORMAT = 1, 2, 3, 4
"""The second is for heads on all stages, the third for networks in int8 and the fourth for costs of many classes, which
earlier releases would not load."""
_HEAD, _LABELS = "head.safetensors", "labels.txt"
_REVIEW = "review.safetensors"
_REVIEW_0_1 = "familiar.safetensors"
"""The name of `_REVIEW` in release 0.1."""

_MALFORMED = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RuntimeError, SafetensorError),
)
"""What is raised where a file of a bundle says something else than it should."""


def write_bundle(
    classifier: Classifier,
    folder: Path,
    golden: Sequence[Path] = (),
    card: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a classifier to a new folder.

    Args:
        classifier: The classifier.
        folder: The folder to write; it must not exist.
        golden: Image files to copy into the bundle and certify it on.
        card: Text of MODEL_CARD.md.
        provenance: Stored in config.json unchanged.

    Raises:
        BundleError: A golden image gets other probabilities after reloading.
        WriteError: The folder exists or cannot be written.
    """
    check_new(folder)
    with atomic.new_folder(folder) as building:
        _write_weights(classifier, building)
        if classifier.review_policy:
            features = {"train_features": classifier.review_policy.train_features}
            atomic.write_bytes(building / _REVIEW, bytes_of_arrays(features))
        atomic.write_text(building / CONFIG, json.dumps(_config(classifier, provenance), indent=2, ensure_ascii=False))
        atomic.write_text(building / _LABELS, "".join(f"{name}\n" for name in classifier.classes))
        if card:
            atomic.write_text(building / "MODEL_CARD.md", card)
        if golden:
            write_golden(classifier, building, golden)
        _write_sums(building)
        # After the sums: a bundle that is copied without the marker is complete.
        mark(building)
        certified_bundle(building)


def certified_bundle(folder: Path) -> Classifier:
    """The classifier of a bundle that reproduces its golden images, in eval mode on the CPU.

    For a network such as MobileNetV2 on one core these take 0.2 s.

    Raises:
        BundleError: A file is missing, was changed or cannot be loaded, or a golden image gets other probabilities.
    """
    classifier = read_bundle(folder)
    certify(classifier, folder)
    return classifier


def read_bundle(folder: Path) -> Classifier:
    """The classifier of a bundle, in eval mode on the CPU; whoever uses it on images takes `certified_bundle`.

    Raises:
        BundleError: A file is missing, was changed or cannot be loaded.
    """
    check_sums(folder)
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        own = config["thaw"]
        if own["format"] > MANY_COSTS_FORMAT:
            raise BundleError(
                f"{folder}: written by a newer Thaw ({own['version']}); this is {__version__}; update Thaw"
            )
        facts = Facts.from_json({**own["facts"], "int8": own.get("int8", False)})
        backbone = rebuild(facts, own["pooling"])
        settings = HeadSettings.model_validate(own["head"])
        backbone.use_features(settings.taken)
        task, classes = labels_in(own)
        head = new_head(backbone, outputs_of(task, classes), settings.hidden, settings.dropout)
        decode = DecodeSettings.model_validate(own["decode"])
        classifier = Classifier(backbone, head, classes, task, decode)
        _load_weights(classifier, folder)
        classifier.decision = Decision.from_json(own.get("decision"), len(classes))
        if not classifier.decision.fits(len(classes)):
            raise ValueError(
                f"the thresholds or costs of its decision are not for {count(len(classes), 'class', 'classes')}"
            )
        classifier.review_policy = _read_review(own, folder, facts.width)
    except _MALFORMED as error:
        raise BundleError(f"{folder}: cannot be loaded: {error}") from error
    return classifier


def check_sums(folder: Path) -> None:
    """Compare every file with SHA256SUMS; raises `BundleError` that names the first that differs or is missing."""
    try:
        listed = listed_sums(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder / SUMS}: cannot be read; the bundle is incomplete") from error
    for name in (MODEL, CONFIG, _LABELS):
        if name not in listed:
            raise BundleError(f"{folder / SUMS}: does not list {name}; the bundle is incomplete")
    for name, digest in listed.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{folder / SUMS}: lists {name}, which is not in the bundle; it was made by hand")
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{file}: is missing from the bundle")
        if sha256_of(file) != digest:
            raise BundleError(f"{file}: was changed after it was written (its SHA-256 differs)")


def digest_of(folder: Path) -> str:
    """SHA-256 of a bundle: that of its SHA256SUMS, which covers every other file."""
    return sha256_of(folder / SUMS)


def files_of(folder: Path) -> list[str]:
    """The names of the files that make a bundle, as its SHA256SUMS lists them, and that file."""
    return [*listed_sums(folder), SUMS]


def _head_settings(classifier: Classifier) -> dict[str, Any]:
    """The settings of the head; `features` is left out where it is `last`, which earlier releases do not know."""
    backbone, head = classifier.backbone, classifier.head
    settings = HeadSettings(
        pooling=backbone.pooling, features=backbone.features, hidden=head.hidden, dropout=head.dropout
    )
    return settings.model_dump(mode="json", exclude={"features"} if backbone.features == "last" else None)


def _write_weights(classifier: Classifier, folder: Path) -> None:
    tensors, metadata = packed(classifier.backbone.named_weights()), {"format": "pt"}
    if classifier.backbone.facts.int8:
        metadata["int8"] = "true"
    head = classifier.head.state_dict()
    if classifier.has_plain_head:
        name = classifier.backbone.facts.classifier_name
        tensors |= {f"{name}.{key.rpartition('.')[2]}": value for key, value in head.items()}
    else:
        atomic.write_bytes(folder / _HEAD, bytes_of_tensors(_plain(head)))
    atomic.write_bytes(folder / MODEL, bytes_of_tensors(_plain(tensors), metadata))


def _load_weights(classifier: Classifier, folder: Path) -> None:
    tensors = load_file(folder / MODEL)
    if classifier.has_plain_head:
        name = classifier.backbone.facts.classifier_name
        head = {key: tensors.pop(f"{name}.{key.rpartition('.')[2]}") for key in classifier.head.state_dict()}
    else:
        head = load_file(folder / _HEAD)
    classifier.head.load_state_dict(head)
    classifier.backbone.load_named_weights(unpacked(tensors))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _config(classifier: Classifier, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    facts = classifier.backbone.facts
    outputs = outputs_of(classifier.task, classifier.classes) if classifier.has_plain_head else 0
    return {
        "architecture": facts.architecture,
        "num_classes": outputs,
        "num_features": facts.width,
        "global_pool": classifier.backbone.pooling,
        "model_args": {**facts.model_args, "global_pool": classifier.backbone.pooling},
        "pretrained_cfg": {
            "tag": "thaw",
            "custom_load": False,
            "input_size": [3, facts.pixels.size, facts.pixels.size],
            "fixed_input_size": False,
            "interpolation": facts.pixels.interpolation,
            "crop_pct": facts.pixels.crop_pct,
            "crop_mode": facts.pixels.crop_mode,
            "mean": facts.mean,
            "std": facts.std,
            "num_classes": outputs,
            "classifier": facts.classifier_name,
            "license": facts.license,
            "label_names": classifier.classes if outputs == len(classifier.classes) else None,
        },
        "thaw": {
            "format": _format_of(classifier),
            "version": __version__,
            "task": classifier.task,
            "classes": classifier.classes,
            "pooling": classifier.backbone.pooling,
            "head": _head_settings(classifier),
            "decode": classifier.decode.model_dump(mode="json"),
            # Earlier releases read the facts before the format, and know no other ones.
            "facts": {name: value for name, value in asdict(facts).items() if name != "int8"},
            "int8": facts.int8,
            "decision": classifier.decision.to_json(),
            **_review(classifier),
            "provenance": dict(provenance or {}),
        },
    }


def _format_of(classifier: Classifier) -> int:
    """The lowest format that can hold a classifier."""
    if classifier.decision.has_many_costs:
        return MANY_COSTS_FORMAT
    if classifier.backbone.facts.int8:
        return INT8_FORMAT
    return FORMAT if classifier.backbone.features == "last" else ALL_STAGES_FORMAT


def _review(classifier: Classifier) -> dict[str, Any]:
    """The limits of the review policy, and the validation baseline that drift is measured against."""
    policy = classifier.review_policy
    if policy is None:
        return {"review": None, "baseline": None}
    fractions = dict(zip(classifier.classes, policy.class_fractions, strict=True))
    return {
        "review": {"max_distance": policy.max_distance, "min_probability": policy.min_probability},
        "baseline": {"confidence": policy.confidence, "class_fractions": fractions},
    }


def _read_review(own: Mapping[str, Any], folder: Path, width: int) -> ReviewPolicy | None:
    """Read what `_review` writes; release 0.1 wrote the same under other names."""
    if review := own.get("review"):
        limits = review["max_distance"], review["min_probability"]
        train_features = load_numpy(folder / _REVIEW)["train_features"]
        fractions = own["baseline"]["class_fractions"]
    elif review := own.get("familiar"):
        limits = review["farthest"], review["least"]
        train_features = load_numpy(folder / _REVIEW_0_1)["bank"]
        fractions = own["baseline"]["shares"]
    else:
        return None
    if train_features.ndim != 2 or train_features.shape[1] != width:
        raise ValueError(f"the features of training images are {train_features.shape}, not (images, {width})")
    return ReviewPolicy(
        train_features=train_features,
        max_distance=float(limits[0]),
        min_probability=None if limits[1] is None else float(limits[1]),
        confidence=float(own["baseline"]["confidence"]),
        class_fractions=tuple(float(fractions[name]) for name in own["classes"]),
    )


def _write_sums(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (SUMS, MARKER))
    lines = [f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    atomic.write_text(folder / SUMS, "".join(lines))
