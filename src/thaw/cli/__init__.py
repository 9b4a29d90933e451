"""The command line: one command is one call.

`labelling` says which images to label, `studio` labels and trains in the browser, `training` has the commands that lead
to a classifier, `tuning` the search for better settings, `trust` those that judge a classifier, `use` those that use
it, and `various` the rest: pre-trained networks, the cache, the settings, the demo.
`interrupts` is what Ctrl+C and SIGTERM do, `leaving` how a process ends.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn

from thaw.cli import labelling, studio, training, trust, tuning, use, various
from thaw.cli.app import app
from thaw.cli.leaving import leave
from thaw.cli.system_errors import system_errors_explained
from thaw.distributed import launched
from thaw.errors import ThawError
from thaw.remote import shown

USER_ERROR = 2

_SPINS = "2000"
"""How often a waiting thread of OpenMP looks for work before it sleeps, about 10 microseconds.

By default it looks 300,000 times. A step that trains MobileNetV2 on two cores then took 3.0 s instead of 0.35 s while
other programs used them, and with this number 0.9 s; on a quiet machine both take the same. Never looking, which is
OMP_WAIT_POLICY=passive, gave 0.73 s, but 0.40 s on a quiet machine.
"""

__all__ = [
    "USER_ERROR",
    "app",
    "command",
    "labelling",
    "main",
    "message",
    "prepare",
    "studio",
    "training",
    "trust",
    "tuning",
    "use",
    "various",
]


def main() -> None:
    """Run a command; an error that the user can fix is one message and exit code 2, never a traceback."""
    prepare()
    try:
        with _together(), system_errors_explained():
            app()
    except ThawError as error:
        print(message(error), file=sys.stderr)
        raise SystemExit(USER_ERROR) from None


def command() -> NoReturn:
    """Run a command in a process of its own, and end that."""
    try:
        main()
    except SystemExit as done:
        if isinstance(done.code, str):
            raise
        leave(done.code or 0)
    leave(0)


def prepare() -> None:
    """What every process of the command line does first, before NumPy and PyTorch are imported."""
    _escape_unprintable()
    _share_cores()
    if not sys.warnoptions:
        # Warnings of libraries are for whoever programs with them; PYTHONWARNINGS=default shows them.
        warnings.simplefilter("ignore")


def message(error: ThawError) -> str:
    """The one message about an error that the user can fix."""
    return f"thaw: {shown(str(error))}"


@contextmanager
def _together() -> Iterator[None]:
    """One of several processes meets the others, and says nothing unless it is the main one or the first to fail."""
    if not launched():
        yield
        return
    # PyTorch warns of unused parameters, for which its users have to look.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from thaw.distributed.joining import joined

    with joined() as process, ExitStack() as quiet:
        if not process.is_main:
            nowhere = quiet.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            quiet.enter_context(redirect_stdout(nowhere))
            quiet.enter_context(redirect_stderr(nowhere))
        if process.count > 1 and sys.argv[1:2] not in (["train"], ["--help"], ["--version"]):
            raise ThawError("only `thaw train` runs in several processes; start other commands without torchrun")
        try:
            yield
        except ThawError:
            # torchrun terminates the others as soon as one has ended, also the one that has yet to say why.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise


def _share_cores() -> None:
    """Let threads that wait leave their core to other programs; takes effect when NumPy and PyTorch are imported.

    NumPy's threads wait without sleeping: an eigendecomposition of 1,024 x 1,024 took 3.2 s on two cores that other
    programs used, with one thread 0.5 s, and by PyTorch 0.45 s. Large products are therefore PyTorch's.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _escape_unprintable() -> None:
    """Show a class or file name that the console's encoding lacks as `\\xfc`, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
