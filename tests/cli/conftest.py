from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.running import thaw


@dataclass(frozen=True)
class Said:
    """What a command has written to standard output and standard error."""

    out: str
    err: str


Refuse = Callable[..., Said]


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that must be refused, in a folder of its own in which nothing may change; gives what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def files() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*"))}

    def refuse(*words: object) -> Said:
        before = files()
        assert thaw(monkeypatch, *words) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert files() == before
        return Said(said.out, said.err)

    return refuse
