import re
from pathlib import Path

import pytest

import thaw
from thaw.distributed import launched, launched_processes

SOURCE = Path(thaw.__file__).parent
IMPORTS = re.compile(r"torch\.distributed|from torch import .*\bdistributed\b|torch\.nn\.parallel")


def test_only_this_package_imports_torch_distributed() -> None:
    files = {file for file in SOURCE.rglob("*.py") if IMPORTS.search(file.read_text(encoding="utf-8"))}
    assert files and {file.parent for file in files} == {SOURCE / "distributed"}


def test_a_process_is_one_of_several_where_the_variables_of_torchrun_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert not launched() and launched_processes() == 1
    for name in names:
        monkeypatch.setenv(name, "3")
    assert launched() and launched_processes() == 3
