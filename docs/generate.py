"""Write the pages that are generated from the code: `python -m docs.generate`.

    docs/settings.md    every setting of a recipe
    docs/cli.md         every command with its arguments and options
    CONTRIBUTING.md     the source map, between its two markers

A test fails when a page differs from the code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from thaw.cli import app
from thaw.recipe.ranges import Range, Searched
from thaw.recipe.reference import Setting, settings
from thaw.tuning.levels import LEVELS
from thaw.tuning.space import default_space

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- source map -->", "<!-- end of the source map -->"


def pages() -> dict[Path, str]:
    """Every generated page with its content."""
    contributing = ROOT / "CONTRIBUTING.md"
    return {
        ROOT / "docs" / "settings.md": settings_page(),
        ROOT / "docs" / "cli.md": cli_page(),
        contributing: with_source_map(contributing.read_text(encoding="utf-8")),
    }


def settings_page() -> str:
    """Every setting of a recipe, section by section."""
    lines = [
        "# Settings",
        "",
        "Every setting of a recipe. In a YAML file sections are nested; on the command line a top-level setting is an",
        "option (`--backbone resnet50`), and `--set` takes any by its dotted key (`--set phases.1.lr=1e-5`), where",
        "phases count from 0. `auto` is decided by the plan, which gives its reason. `thaw settings WORD` searches.",
    ]
    for section, found in groupby(sorted(settings(), key=lambda setting: setting.section), lambda s: s.section):
        lines += ["", f"## {section or 'Top level'}", ""]
        lines += ["| setting | default | allowed | |", "| --- | --- | --- | --- |"]
        lines += [_row(setting) for setting in found]
    lines += [
        "",
        "## What a search tries",
        "",
        "`thaw search` varies these settings; a file of ranges replaces some.",
        "",
    ]
    lines += ["| setting | level | tried |", "| --- | --- | --- |"]
    ranges = default_space(["networks that are here"], {}).ranges
    lines += [f"| `{key}` | {level.name} | {_tried(ranges[key])} |" for level in LEVELS for key in level.settings]
    return "\n".join([*lines, ""])


def _tried(searched: Searched) -> str:
    """What is tried for a setting, in words."""
    if isinstance(searched, Range):
        return f"{searched.low:g} to {searched.high:g}{', on a logarithmic scale' if searched.log else ''}"
    return ", ".join("as trained" if value is None else str(value or "none") for value in map(_plain, searched.values))


def _plain(value: Any) -> Any:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else value


def cli_page() -> str:
    """Every command with its help."""
    lines = ["# Commands", "", f"`thaw COMMAND --help` shows the same. {app.info.help}", ""]
    for name, command in _commands(typer.main.get_command(app), "thaw"):
        lines += _command(name, command)
    return "\n".join(lines)


def with_source_map(text: str) -> str:
    """A text with what is between the two markers replaced by the current source map."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{source_map()}\n{END}{after}"


def source_map() -> str:
    """The modules of the package, each with the first sentence of its docstring."""
    package = ROOT / "src" / "thaw"
    return "\n".join(["    src/thaw/", *_folder(package, 2)]) + "\n"


def _row(setting: Setting) -> str:
    cells = (f"`{setting.key}`", f"`{setting.default}`", setting.allowed, setting.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, command) of each command below a group."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child in children.values():
        yield from _commands(child, f"{name} {child.name}")


def _command(name: str, command: Any) -> list[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option" and item.name != "help"]
    names = [(item.metavar or item.name.upper()).strip("[]") for item in arguments]
    words = [name if item.required else f"[{name}]" for name, item in zip(names, arguments, strict=True)]
    text = " ".join((command.help or "").split())
    lines = [f"## {name}", "", f"    {' '.join([name, *words, '[OPTIONS]'])}", "", text, ""]
    rows = [_row_of(name, item) for name, item in zip(names, arguments, strict=True)]
    rows += [_row_of(", ".join(item.opts), item) for item in options]
    return [*lines, "| | | default |", "| --- | --- | --- |", *rows, ""] if rows else lines


def _row_of(name: str, item: Any) -> str:
    """One argument or option as a row of a table."""
    description = " ".join((item.help or "").split()).replace("|", "\\|")
    default = item.default
    is_empty = default is None or default is False or default in ("", [], ()) or callable(default)
    shown = "" if is_empty else f"`{default}`"
    return f"| `{name}` | {description} | {shown} |"


def _folder(folder: Path, depth: int) -> list[str]:
    """Sub-packages after the modules of a folder, each with what its docstring says."""
    indent, lines = "  " * (depth + 1), []
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            lines.append(f"{indent}{file.name:<24} {_summary(file)}")
    for child in sorted(path for path in folder.iterdir() if (path / "__init__.py").is_file()):
        lines += [f"{indent}{child.name + '/':<24} {_summary(child / '__init__.py')}", *_folder(child, depth + 1)]
    return lines


def _summary(file: Path) -> str:
    """The first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


def main() -> None:
    """Write every page."""
    for file, content in pages().items():
        file.write_text(content, encoding="utf-8")
        print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
