"""All errors that a user can cause, as one tree.

ThawError                   one sentence: what is wrong, where, what to do; exit code 2
├── DataError               unusable images, table or split
│   └── UnreadableImage     one file that cannot be decoded; becomes an error row instead of stopping the command
├── RecipeError             a setting that is unknown, out of range or contradicts another
├── BackboneError           an unknown architecture, or a cut that it does not have
│   └── WeightsError        pre-trained weights that are missing, unreachable or do not fit
├── TrainingError           a run that cannot continue
│   ├── ResumeError         a resumed run whose data or recipe has changed
│   └── UpdateError         an update that is not kept, because an old class would be recognised less well
├── BundleError             a bundle that is incomplete, was changed, or does not reproduce its own predictions
├── ExportError             an export that is not possible, or does not reproduce the bundle
├── WriteError              a place that is taken or cannot be written, or a full disk
├── ClusterError            a cluster that cannot be used, or a piece of work that fails there
├── PackageError            an optional package that is missing, or was imported in a way that Thaw cannot use
└── ServeError              a server that cannot start
"""

from __future__ import annotations

from pathlib import Path


class ThawError(Exception):
    """An error that the user can fix; its message says how."""


class DataError(ThawError):
    """The images, the table or the split cannot be used."""


class UnreadableImage(DataError):
    """One image file cannot be decoded; the message is the reason."""


class RecipeError(ThawError):
    """A setting is unknown, out of range or contradicts another one."""


class BackboneError(ThawError):
    """The architecture is unknown, or does not have the cut."""


class WeightsError(BackboneError):
    """Pre-trained weights are missing, unreachable or do not fit the architecture."""


class TrainingError(ThawError):
    """Training cannot continue."""


class ResumeError(TrainingError):
    """The data or the recipe has changed since the run started."""


class UpdateError(TrainingError):
    """An update is not kept, because an old class would be recognised less well."""


class BundleError(ThawError):
    """A bundle is incomplete, was changed, or does not reproduce its own predictions."""


class ExportError(ThawError):
    """An export is not possible, or does not reproduce the bundle."""


class WriteError(ThawError):
    """A place is taken or cannot be written, or the disk is full; the message is the place and the problem."""

    def __init__(self, place: Path | str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place, self.problem = Path(place), problem


class ClusterError(ThawError):
    """A cluster cannot be reached or used, or a piece of work fails on one of its nodes."""


class PackageError(ThawError):
    """An optional package is missing, or was imported in a way that Thaw cannot use."""


class ServeError(ThawError):
    """A server cannot start with these settings."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
