import sys

import pytest

from thaw.cli import main


def thaw(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run a command as the shell would; gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["thaw", *map(str, words)])
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0
