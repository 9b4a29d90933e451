"""Whether the folders of added images look like classes, so that they can be offered as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from thaw.data.class_names import unify
from thaw.data.split_names import split_of
from thaw.errors import DataError
from thaw.studio.marks import checked_name

_MAX_CLASSES = 100
_LEAST = 2
"""Images of a class, on average."""


def labels_of_folders(paths: Mapping[int, str], known: Sequence[str]) -> dict[int, str]:
    """The label that the folder of each image names.

    The classes are the uppermost folders of which there are several, or one that is a class already; folders such as
    train and test are passed over.

    Args:
        paths: By row, the path of each image.
        known: The classes of the project.

    Returns:
        By row; empty if the folders do not look like classes.
    """
    folders = {row: path.split("/")[:-1] for row, path in paths.items()}
    for depth in range(min(map(len, folders.values()), default=0)):
        names = sorted({parts[depth] for parts in folders.values()})
        if all(split_of(name) for name in names) or (len(names) == 1 and names[0] not in known):
            continue
        if len(names) > _MAX_CLASSES or _LEAST * len(names) > len(paths):
            return {}
        try:
            class_of = {name: checked_name(name, tuple(known)) for name in names}
            unify(dict.fromkeys(class_of.values(), "folder"), known)
        except DataError:
            return {}
        return {row: class_of[parts[depth]] for row, parts in folders.items()}
    return {}
