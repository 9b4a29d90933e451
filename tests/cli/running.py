import sys

import pytest

from thaw.cli import main


def thaw(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run a command as the shell would; gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["thaw", *map(str, words)])
    # Commands silence the warnings of libraries unless Python is told what to do with them; here they are errors.
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0
