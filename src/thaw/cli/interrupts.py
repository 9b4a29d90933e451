"""What a command says when it is stopped by Ctrl+C or by SIGTERM, which schedulers send before they kill."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from thaw.errors import ThawError, first_line
from thaw.formats import command
from thaw.remote import without_password

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 and the number of the signal, as shells and schedulers expect."""

_AGAIN = 0.05
"""Seconds after which a signal that was ignored is sent again."""


class Terminated(KeyboardInterrupt):
    """SIGTERM; what cleans up after Ctrl+C cleans up after it too."""


class Commands(TyperGroup):
    """All commands; typer itself would end with `Aborted.` or in silence where this says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with _terminated_by_sigterm():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            if ctx.invoked_subcommand in ("serve", "studio"):
                raise typer.Exit from stop
            words = sys.argv[1:]
            again = words_to_resume(self.get_command(ctx, words[0]), words) if hasattr(stop, "__notes__") else ()
            print(f"\nthaw: {sentence(stop, words, again)}", file=sys.stderr, flush=True)
            raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from stop
        except EOFError as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            raise ThawError(f"a file or stream ended too early ({first_line(error)}; {where})") from error


def words_to_resume(command: Any, words: Sequence[str]) -> list[str]:
    """The command line, without `thaw`, that resumes a command; empty for one that has no `--resume`.

    Args:
        command: As click has it.
        words: The command line that was stopped, without `thaw`.
    """
    if all(parameter.name != "resume" for parameter in command.params):
        return []
    return [*words, *(["--resume"] if "--resume" not in words else [])]


def sentence(stop: KeyboardInterrupt, words: Sequence[str], again: Sequence[str] = ()) -> str:
    """That a command was stopped, and how to go on.

    Args:
        stop: Its notes say what is kept of a run.
        words: The command line, without `thaw`.
        again: The one that resumes it, if there is one; a password in an address is not repeated.
    """
    stopped = "terminated" if isinstance(stop, Terminated) else "interrupted"
    if notes := getattr(stop, "__notes__", []):
        kept = f"{stopped}; {'; '.join(notes)}"
        return f"{kept}; resume with: {command('thaw', *map(without_password, again))}" if again else kept
    writes = any(word.partition("=")[0] == "--out" for word in words)
    if words[:1] == ["update"] or (words[:1] == ["predict"] and writes):
        return f"{stopped}; re-run the same command to resume"
    return stopped


@contextmanager
def _terminated_by_sigterm() -> Iterator[None]:
    """SIGTERM raises `Terminated` within the block, unless this process was told to handle it in another way."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with _sent_again():
            yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _sent_again() -> Iterator[None]:
    """Within the block, a signal whose exception Python ignores is sent again.

    Python ignores what is raised in `__del__` and in callbacks of weak references, of which an export has many.
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            before(ignored)
            return
        number = signal.SIGTERM if isinstance(ignored.exc_value, Terminated) else signal.SIGINT
        # Later: what is raised within this hook is ignored too.
        timers.append(threading.Timer(_AGAIN, _send, (number,)))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


def _send(number: int) -> None:
    """Send a signal to this process."""
    if sys.platform == "win32":
        # Its `os.kill` ends the process at once.
        _thread.interrupt_main(signal.Signals(number))
    else:
        os.kill(os.getpid(), number)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
