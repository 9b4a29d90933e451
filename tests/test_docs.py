"""The documentation is true: generated pages equal the code, and help and docs use the terms of the field."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from docs import generate
from tests.vocabulary import offences
from thaw.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [line.removeprefix("## thaw ") for line in generate.cli_page().splitlines() if line.startswith("## ")]


@pytest.mark.parametrize("file", list(generate.pages()), ids=lambda file: file.name)
def test_generated_pages_equal_the_code(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == generate.pages()[file], "run scripts/docs"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_documents_use_the_terms_of_the_field(file: Path) -> None:
    assert not offences(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_uses_the_terms_of_the_field(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0 and "Usage" in shown.output
    assert not offences(shown.output)
