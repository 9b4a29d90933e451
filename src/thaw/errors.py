"""Every error a user can meet, in one tree.

ThawError                   one clear sentence: what is wrong, where, what to do; exit code 2
├── DataError               the images, the table or the split
│   └── UnreadableImage     one file that cannot be decoded; becomes an error row, not a crash
├── RecipeError             a setting that is unknown, out of range or contradictory
├── BackboneError           an unknown architecture or a cut it does not have
│   └── WeightsError        weights that are missing, unreachable or do not fit
├── TrainingError           a run that cannot go on
│   └── ResumeError         a resume whose data or recipe has changed
├── BundleError             a bundle that is incomplete, tampered with or does not reproduce itself
├── ExportError             an export that cannot be written, or does not give what the bundle gives
└── ServeError              a server that cannot start as it was asked to
"""


class ThawError(Exception):
    """A mistake that the user can mend; the message is the whole story."""


class DataError(ThawError):
    """The images, the table or the split are not usable as they are."""


class UnreadableImage(DataError):
    """One image file cannot be decoded; the message is its reason."""


class RecipeError(ThawError):
    """A setting is unknown, out of range or contradicts another."""


class BackboneError(ThawError):
    """No such architecture, or no such cut in it."""


class WeightsError(BackboneError):
    """Pre-trained weights are missing, unreachable or do not fit the architecture."""


class TrainingError(ThawError):
    """Training cannot go on."""


class ResumeError(TrainingError):
    """The data or the recipe is not what the interrupted run began with."""


class BundleError(ThawError):
    """A bundle is incomplete, tampered with or does not reproduce its own answers."""


class ExportError(ThawError):
    """An export cannot be written, or does not give what the bundle gives."""


class ServeError(ThawError):
    """A server cannot start as it was asked to."""


def first_line(error: Exception) -> str:
    """What an error says in its first line, or its name where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
