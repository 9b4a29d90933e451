"""Starts a module as a process of its own, with a request as JSON on its standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile
from typing import Any


def start_process(module: str, request: Mapping[str, Any]) -> Popen[bytes] | None:
    """Run `python -m module`.

    Args:
        module: Its full name. It reads the request with `json.load(sys.stdin)`.
        request: Values that JSON can hold, of any size: a pipe would block where the process is slow to read.

    Returns:
        The process, whose standard output is a pipe and whose errors are dropped; `None` where it cannot be started.
    """
    # With -P a module in the current folder is not imported in place of one of Python's.
    command = [sys.executable, "-P", "-m", module]
    with suppress(OSError), TemporaryFile("w+", encoding="utf-8") as stdin:
        json.dump(request, stdin)
        stdin.seek(0)
        return Popen(command, stdin=stdin, stdout=PIPE, stderr=DEVNULL)
    return None
