"""The documentation is true: generated pages equal the code, and help and docs use the terms of the field."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from docs import generate
from tests.vocabulary import offences
from thaw.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
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


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_to_a_file_and_a_heading(file: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(file: Path) -> set[str]:
    """What a page calls its headings in addresses."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_commands_exist_with_their_options(file: Path) -> None:
    for line in commands_in(file.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options <= {*known, "--help"}, line
        assert not hasattr(command, "commands") or options, line


def test_what_to_install_is_in_quotes_that_every_shell_knows() -> None:
    sources = [*DOCUMENTS, *(ROOT / "src" / "thaw").rglob("*.py")]
    texts = {file.name: file.read_text(encoding="utf-8") for file in sources}
    # Single quotes are part of the word in cmd.
    assert not [name for name, text in texts.items() if re.search(r"'thaw-vision\[[^\]']*\][^\s']*'", text)]


def commands_in(text: str) -> list[str]:
    """The lines of code blocks that run Thaw, without its prompt and what they are piped into."""
    lines = re.findall(r"^    (?:\$ )?(thaw [^|&\n]*)", text, re.MULTILINE)
    return [line for line in lines if "…" not in line]
