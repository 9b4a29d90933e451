"""The labels of a project: those that the images came with, and every change since, one after the other."""

from __future__ import annotations

import getpass
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from thaw.data.walk import natural_key
from thaw.errors import DataError
from thaw.formats import count
from thaw.studio.images import Images
from thaw.studio.journal import Journal
from thaw.studio.marks import UNLABELLED, Change, Mark


class Conflict(Exception):
    """Somebody else has changed an image meanwhile; `present` has the mark of each image that is concerned, by row."""

    def __init__(self, present: Mapping[int, Mark]) -> None:
        super().__init__("changed meanwhile")
        self.present = dict(present)


@dataclass(frozen=True)
class Edit:
    """One edit: the changes of some images that were made together, by row."""

    number: int
    changes: tuple[tuple[int, Change], ...]

    @property
    def sentence(self) -> str:
        """What it did, for the user."""
        after = self.changes[0][1].after
        if any(change.after != after for _, change in self.changes):
            return f"{count(len(self.changes), 'image')} labelled"
        return f"{count(len(self.changes), 'image')} {_outcome(after)}"


def _outcome(mark: Mark) -> str:
    """What an image has become, in words."""
    if mark.ambiguous:
        return "ambiguous"
    if mark.excluded:
        return "excluded"
    return f"labelled {mark.label}" if mark.label else "without a label"


@dataclass
class _State:
    """What the lines up to now say: the mark of each row, the classes, and the edits that can be undone."""

    marks: list[Mark]
    classes: list[str]
    undoable: list[Edit] = field(default_factory=list)
    last: int = 0

    def apply(self, edit: Edit, undoes: int | None) -> None:
        for row, change in edit.changes:
            self.marks[row] = change.after
            self.take_class(change.after.label)
        self.last = max(self.last, edit.number)
        if undoes is not None:
            self.undoable = [earlier for earlier in self.undoable if earlier.number != undoes]
        elif edit.changes:
            self.undoable.append(edit)

    def take_class(self, label: str | None) -> None:
        """Append the class of a label that is not there yet."""
        if label is not None and label not in self.classes:
            self.classes.append(label)

    def forget_unused(self, initial: Collection[str | None]) -> None:
        """Drop the classes that came by an edit and that no image has, such as a name with a typing error."""
        used = {*initial, *(mark.label for mark in self.marks)}
        self.classes = [name for name in self.classes if name in used]


class Labels:
    """The marks of all images, with the file that keeps every change; its methods can be called from any thread."""

    def __init__(self, images: Images, file: Path, clock: Callable[[], datetime] | None = None) -> None:
        """Open the file of changes, or make it, and replay it over the labels that the images came with.

        A change is of an image, whatever its file is called: it is applied to the file at its path if that has the same
        content, and otherwise to files of this content that are called otherwise than when the change was made.

        Raises:
            DataError: The file is damaged, or open in another process.
            WriteError: It cannot be written.
        """
        self._images = images
        self._clock = clock or (lambda: datetime.now().astimezone())
        self._by = _user()
        self._guard = threading.Lock()
        self._journal = Journal(file)
        self._known: dict[str, Mark] = {}
        initial = sorted({label for label in images.labels if label is not None}, key=natural_key)
        self._state = _State([Mark(label) for label in images.labels], initial)
        try:
            self.notes = self._replay(file)
        except DataError:
            self._journal.close()
            raise

    def close(self) -> None:
        """Close the file of changes."""
        self._journal.close()

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class: those of the initial labels in natural order, then new ones as they came.

        Their keys stay while Studio is open; a new one that no image has is gone when it is opened again.
        """
        return tuple(self._state.classes)

    @property
    def changed(self) -> int:
        """The number of the last edit, which increases with every one, undone or not."""
        return self._state.last

    def marks(self) -> list[Mark]:
        """The mark of each row now."""
        with self._guard:
            return list(self._state.marks)

    def mark(self, row: int) -> Mark:
        """The mark of one row now."""
        return self._state.marks[row]

    @property
    def last_edit(self) -> Edit | None:
        """The edit that `undo` would take back."""
        with self._guard:
            return self._state.undoable[-1] if self._state.undoable else None

    def edit(self, seen: Mapping[int, Mark], after: Mark) -> Edit | None:
        """Give some images a mark, and wait until this is on disk.

        Args:
            seen: By row, the mark that whoever makes the edit saw.
            after: The new mark of all of them.

        Returns:
            The edit; `None` if it changes nothing.

        Raises:
            Conflict: One of them has another mark by now; nothing is changed.
            WriteError: The disk is full; nothing is changed.
        """
        with self._guard:
            self._check(seen)
            return self._write({row: after for row, mark in seen.items() if mark != after})

    def label_new(self, wanted: Mapping[int, str]) -> Edit | None:
        """Label those of some images that are still to be labelled, and wait until this is on disk.

        Args:
            wanted: By row, the label.

        Returns:
            The edit; `None` if it changes nothing.

        Raises:
            WriteError: The disk is full; nothing is changed.
        """
        with self._guard:
            marks = self._state.marks
            return self._write({row: Mark(name) for row, name in wanted.items() if marks[row] == UNLABELLED})

    def take_added(self) -> None:
        """Take note of images that were added: they are still to be labelled, unless they were here before."""
        with self._guard:
            marks = self._state.marks
            for row in range(len(marks), len(self._images)):
                marks.append(self._known.get(self._images.digests[row], Mark(self._images.labels[row])))
                self._state.take_class(marks[row].label)

    def undo(self, number: int) -> Edit | None:
        """Take back the last edit, which has to be the one with this number.

        Raises:
            Conflict: Another edit was made or taken back meanwhile; nothing is changed.
            WriteError: The disk is full; nothing is changed.
        """
        with self._guard:
            last = self._state.undoable[-1] if self._state.undoable else None
            if last is None or last.number != number:
                raise Conflict({})
            return self._write({row: change.before for row, change in last.changes}, undoes=number)

    def _check(self, seen: Mapping[int, Mark]) -> None:
        marks = self._state.marks
        if any(marks[row] != mark for row, mark in seen.items()):
            raise Conflict({row: marks[row] for row in seen})

    def _write(self, after: Mapping[int, Mark], undoes: int | None = None) -> Edit | None:
        if not after:
            return None
        number, now = self._state.last + 1, self._clock()
        paths, digests, marks = self._images.paths, self._images.digests, self._state.marks
        changes = tuple(
            (row, Change(number, digests[row], paths[row], marks[row], mark, now, self._by, len(after), undoes))
            for row, mark in after.items()
        )
        self._journal.append([change.to_json() for _, change in changes])
        edit = Edit(number, changes)
        self._state.apply(edit, undoes)
        return edit

    def _replay(self, file: Path) -> tuple[str, ...]:
        """Apply every line of the file; the remarks say which could not be applied."""
        changes = [_change(file, number, line) for number, line in enumerate(self._journal.lines, 1)]
        self._journal.forget()
        place = _Place(self._images, changes)
        by_edit: defaultdict[int, list[Change]] = defaultdict(list)
        for change in changes:
            by_edit[change.edit].append(change)
        for number, parts in by_edit.items():
            if len(parts) < parts[0].images:
                # Studio was killed while it wrote them. The next edit has another number all the same.
                self._state.last = max(self._state.last, number)
                continue
            found = tuple((row, change) for change in parts for row in place.rows(change))
            self._state.apply(Edit(number, found), parts[0].undoes)
            # Of images that are not here, in case they are added.
            self._known |= {change.image: change.after for change in parts}
        self._state.forget_unused(self._images.labels)
        lost = {change.path for change in changes if not place.rows(change)}
        if not lost:
            return ()
        example = min(lost, key=natural_key)
        return (f"{count(len(lost), 'image')} with a change of the label no longer there, for example {example}",)


class _Place:
    """Where the images of some changes are now."""

    def __init__(self, images: Images, changes: Sequence[Change]) -> None:
        self._images = images
        self._row_of = {path: row for row, path in enumerate(images.paths)}
        named = {(change.path, change.image) for change in changes}
        self._moved: defaultdict[str, list[int]] = defaultdict(list)
        for row, (path, digest) in enumerate(zip(images.paths, images.digests, strict=True)):
            # Files that cannot be read have no content by which they could be known.
            if images.is_readable(row) and (path, digest) not in named:
                self._moved[digest].append(row)

    def rows(self, change: Change) -> list[int]:
        row = self._row_of.get(change.path)
        if row is not None and self._images.digests[row] == change.image:
            return [row]
        return self._moved.get(change.image, [])


def _change(file: Path, number: int, line: Mapping[str, object]) -> Change:
    try:
        return Change.from_json(line)
    except (KeyError, TypeError, ValueError, OverflowError, DataError) as error:
        raise DataError(f"{file}: line {number} is not a change of a label; restore the file from a copy") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
