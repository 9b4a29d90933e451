"""The bundle: a finished classifier as a folder of safetensors, JSON and text, with no code and no pickle in it.

    model.safetensors   the backbone, and the head too where it is one linear layer; tensors named as timm names them
    head.safetensors    the head, where it has hidden layers
    config.json         architecture, preprocessing and classes as timm and the Hub read them; `thaw` holds the rest
    labels.txt          one class a line, in the order of the outputs
    review.safetensors  features of training images, for out-of-distribution detection; absent where there are none
    golden/             a few images and the probabilities that they must give
    SHA256SUMS          of every other file, as `sha256sum` writes it

It is written beside its place, checked on its golden images from file bytes to probabilities, and only then renamed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor

from thaw import atomic, hub
from thaw.backbones import rebuild
from thaw.backbones.contract import Facts
from thaw.classifier.classifier import Classifier, outputs_of
from thaw.classifier.decision import Decision
from thaw.classifier.head import Head
from thaw.classifier.review import ReviewPolicy
from thaw.data.geometry import PixelSpec
from thaw.errors import BundleError, DataError
from thaw.prediction.predict import Prediction, predict_files
from thaw.recipe import DecodeSettings, HeadSettings
from thaw.version import __version__

FOLDER_IN_RUN = "model"
"""The folder of a run that holds its bundle."""

FORMAT = 1
TOLERANCE = 1e-4
_MODEL, _HEAD, _CONFIG, _LABELS, _SUMS = (
    "model.safetensors",
    "head.safetensors",
    "config.json",
    "labels.txt",
    "SHA256SUMS",
)
_GOLDEN, _REVIEW = "golden", "review.safetensors"
_REVIEW_0_1 = "familiar.safetensors"
"""What release 0.1 called `_REVIEW`."""


def bundle_of(path: Path) -> Path:
    """The bundle in a run folder, a bundle folder, or at `hub:OWNER/NAME`, which is downloaded.

    Raises `DataError` where there is none, and `BundleError` where it cannot be downloaded.
    """
    if hub.is_hub_name(str(path)):
        return hub.fetch(str(path))
    for folder in (path / FOLDER_IN_RUN, path):
        if (folder / _CONFIG).is_file():
            return folder
    if not path.exists():
        raise DataError(f"{path}: there is no such run or bundle")
    raise DataError(
        f"{path}: neither a finished run nor a bundle; a bundle contains {_CONFIG} and {_MODEL}, and an unfinished run "
        "is resumed with `thaw train DATA --resume`"
    )


def write_bundle(
    classifier: Classifier,
    folder: Path,
    golden: Sequence[Path] = (),
    card: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a classifier to a new folder; raises `BundleError` when the folder exists or a golden image disagrees.

    `golden` are image files to copy and certify on; `card` is the text of MODEL_CARD.md; `provenance` is kept in
    config.json as it is.
    """
    if folder.exists():
        raise BundleError(f"{folder}: there is something already; give a new folder")
    with atomic.new_folder(folder) as building:
        _write_weights(classifier, building)
        if classifier.review_policy:
            save_numpy({"train_features": classifier.review_policy.train_features}, building / _REVIEW)
        atomic.write_text(building / _CONFIG, json.dumps(_config(classifier, provenance), indent=2, ensure_ascii=False))
        atomic.write_text(building / _LABELS, "".join(f"{name}\n" for name in classifier.classes))
        if card:
            atomic.write_text(building / "MODEL_CARD.md", card)
        if golden:
            _write_golden(classifier, building / _GOLDEN, golden)
        # safetensors makes files that their owner alone may read; a server runs as somebody else.
        for file in building.glob("*.safetensors"):
            file.chmod((building / _CONFIG).stat().st_mode)
        _write_sums(building)
        certify(read_bundle(building), building)


def read_bundle(folder: Path) -> Classifier:
    """The classifier of a bundle, in eval mode on the CPU; raises `BundleError` for a file that is not as written."""
    check_sums(folder)
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
        own, facts = config["thaw"], _facts_of(config)
        if own["format"] > FORMAT:
            raise BundleError(f"{folder}: written by a newer Thaw ({own['version']}); this one is {__version__}")
        backbone = rebuild(facts, own["pooling"])
        settings = HeadSettings.model_validate(own["head"])
        head = Head(facts.width, outputs_of(own["task"], own["classes"]), settings.hidden, settings.dropout, seed=0)
        decode = DecodeSettings.model_validate(own["decode"])
        classifier = Classifier(backbone, head, own["classes"], own["task"], decode)
        _load_weights(classifier, folder)
        classifier.decision = Decision.from_json(own.get("decision"))
        classifier.review_policy = _read_review(own, folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, ValidationError, RuntimeError) as error:
        raise BundleError(f"{folder}: cannot be loaded: {error}") from error
    return classifier


def check_sums(folder: Path) -> None:
    """Compare every file with SHA256SUMS; raises `BundleError` naming the first that differs or is missing."""
    try:
        lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder / _SUMS}: cannot be read; this is not a whole bundle") from error
    listed = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        listed[name] = digest
    for name in (_MODEL, _CONFIG, _LABELS):
        if name not in listed:
            raise BundleError(f"{folder / _SUMS}: does not list {name}; this is not a whole bundle")
    for name, digest in listed.items():
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{file}: is missing from the bundle")
        if _sha256(file) != digest:
            raise BundleError(f"{file}: is not as it was written (its SHA-256 differs)")


def digest_of(folder: Path) -> str:
    """SHA-256 of a bundle: of its list of sums, which stands for every file of it."""
    return _sha256(folder / _SUMS)


def certify(classifier: Classifier, folder: Path) -> None:
    """Predict the golden images of a bundle anew; raises `BundleError` when a probability is off by over 1e-4."""
    record = folder / _GOLDEN / "golden.json"
    if not record.is_file():
        return
    for entry in json.loads(record.read_bytes()):
        file = folder / _GOLDEN / entry["file"]
        (prediction,) = predict_files(classifier, [file])
        if _distance(prediction, entry["probabilities"]) > TOLERANCE:
            raise BundleError(f"{file}: the bundle does not give the probabilities that it was written with")


def golden_of(folder: Path) -> list[Path]:
    """The golden images of a bundle."""
    record = folder / _GOLDEN / "golden.json"
    names = [entry["file"] for entry in json.loads(record.read_bytes())] if record.is_file() else []
    return [folder / _GOLDEN / name for name in names]


def _write_golden(classifier: Classifier, folder: Path, golden: Sequence[Path]) -> None:
    folder.mkdir()
    entries = []
    for number, prediction in enumerate(predict_files(classifier, golden)):
        name = f"{number:02d}{prediction.path.suffix.lower()}"
        shutil.copyfile(prediction.path, folder / name)
        entries.append(
            {
                "file": name,
                "sha256": _sha256(folder / name),
                "label": prediction.label,
                "probabilities": prediction.probabilities,
            }
        )
    atomic.write_text(folder / "golden.json", json.dumps(entries, indent=2, ensure_ascii=False))


def _distance(prediction: Prediction, expected: Sequence[float]) -> float:
    if len(prediction.probabilities) != len(expected):
        return float("inf")
    return float(np.abs(np.subtract(prediction.probabilities, expected)).max(initial=0.0))


def _write_weights(classifier: Classifier, folder: Path) -> None:
    tensors = classifier.backbone.named_weights()
    head = classifier.head.state_dict()
    if classifier.head.is_linear:
        name = classifier.backbone.facts.classifier_name
        tensors |= {f"{name}.{key.rpartition('.')[2]}": value for key, value in head.items()}
    else:
        save_file(_plain(head), folder / _HEAD)
    save_file(_plain(tensors), folder / _MODEL, metadata={"format": "pt"})


def _load_weights(classifier: Classifier, folder: Path) -> None:
    tensors = load_file(folder / _MODEL)
    if classifier.head.is_linear:
        name = classifier.backbone.facts.classifier_name
        head = {key: tensors.pop(f"{name}.{key.rpartition('.')[2]}") for key in classifier.head.state_dict()}
    else:
        head = load_file(folder / _HEAD)
    classifier.head.load_state_dict(head)
    classifier.backbone.load_named_weights(tensors)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _config(classifier: Classifier, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    facts, head = classifier.backbone.facts, classifier.head
    outputs = outputs_of(classifier.task, classifier.classes) if head.is_linear else 0
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
            "format": FORMAT,
            "version": __version__,
            "task": classifier.task,
            "classes": classifier.classes,
            "pooling": classifier.backbone.pooling,
            "head": HeadSettings(
                pooling=classifier.backbone.pooling, hidden=head.hidden, dropout=head.dropout
            ).model_dump(mode="json"),
            "decode": classifier.decode.model_dump(mode="json"),
            "facts": asdict(facts),
            "decision": classifier.decision.to_json(),
            **_review(classifier),
            "provenance": dict(provenance or {}),
        },
    }


def _review(classifier: Classifier) -> dict[str, Any]:
    """What flags images for review, and what validation looked like."""
    policy = classifier.review_policy
    if policy is None:
        return {"review": None, "baseline": None}
    fractions = dict(zip(classifier.classes, policy.class_fractions, strict=True))
    return {
        "review": {"max_distance": policy.max_distance, "min_probability": policy.min_probability},
        "baseline": {"confidence": policy.confidence, "class_fractions": fractions},
    }


def _read_review(own: Mapping[str, Any], folder: Path) -> ReviewPolicy | None:
    """What `_review` wrote, or release 0.1 under other names."""
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
    return ReviewPolicy(
        train_features=train_features,
        max_distance=limits[0],
        min_probability=limits[1],
        confidence=own["baseline"]["confidence"],
        class_fractions=tuple(fractions[name] for name in own["classes"]),
    )


def _facts_of(config: Mapping[str, Any]) -> Facts:
    values = dict(config["thaw"]["facts"])
    values["pixels"] = PixelSpec(**{**values["pixels"], "fill": tuple(values["pixels"]["fill"])})
    values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
    return Facts(**values)


def _write_sums(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != _SUMS)
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    atomic.write_text(folder / _SUMS, "".join(lines))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
