"""The usual names of splits, in folders and in tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from thaw.formats import listed

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
"""Each name of a split; `split_of` also reads it with a number, a plural, or a word such as `set` or `images`."""

_PLAIN = frozenset({"train", "val", "valid", "validation", "test"})
_AROUND = frozenset({"set", "data", "dataset", "split", "image", "images", "imgs", "img", "photos", "pictures"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_JOINED = re.compile(rf"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})({'|'.join(sorted(_AROUND))}|s)")


def split_of(name: str) -> str | None:
    """The split that a name means: train, val or test; `None` for any other name.

    Read without case, numbers and separators, also with a word such as `set`, `data` or `images`: `Training`,
    `train_set`, `1_train`, `TestImages` and `val2017` are splits; `training material` and `pretest` are not.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if re.sub(r"[\d\W_]", "", name) != "".join(_WORD.findall(name)):
        return None
    if words == ["hold", "out"]:
        words = ["holdout"]
    rest = [word for word in words if word not in _AROUND]
    if len(rest) != 1:
        return None
    joined = _JOINED.fullmatch(rest[0])
    return SPLIT_WORDS.get(joined[1] if joined else rest[0])


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """The split that each of some names means, without the names that mean none.

    What is called `eval` is validation, or the test split if another name is for validation.
    """
    found = {name: split for name in names if (split := split_of(name))}
    is_evaluation = {name: "eval" in name.lower() for name in found}
    if not any(split == "val" and not is_evaluation[name] for name, split in found.items()):
        return found
    return {name: "test" if is_evaluation[name] else split for name, split in found.items()}


def spelling_note(splits: Mapping[str, str], what: str) -> tuple[str, ...]:
    """A remark on splits that were read from unusual names, if there are any; `what` says what has these names."""
    if all(is_plain(name) for name in splits):
        return ()
    return (f"{what} read as splits: {listed([f'{name} as {split}' for name, split in splits.items()], 6)}",)


def is_plain(name: str) -> bool:
    """Whether a name is one of train, val, valid, validation and test in any case, and nothing else."""
    return name.lower() in _PLAIN
