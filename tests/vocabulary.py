"""Words that no page, help text or document may use, as `vocabulary.txt` lists them."""

import re
from functools import cache
from html import unescape
from pathlib import Path

_FILE = Path(__file__).with_name("vocabulary.txt")


@cache
def avoided() -> list[tuple[re.Pattern[str], str]]:
    """Each pattern, and what to say instead."""
    lines = [line for line in _FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pairs = [line.partition("->") for line in lines]
    return [(re.compile(pattern.strip(), re.IGNORECASE), instead.strip()) for pattern, _, instead in pairs]


def offences(text: str) -> list[str]:
    """Every avoided word of a text with the words around it, and what to say instead."""
    flat = " ".join(text.split())
    return [
        f"{flat[max(found.start() - 40, 0) : found.end() + 40]!r}: {found.group()} -> {instead}"
        for pattern, instead in avoided()
        for found in pattern.finditer(flat)
    ]


def text_of(page: str) -> str:
    """What a reader sees of an HTML page: without scripts, styles and preformatted text, but with attributes read
    aloud by a screen reader or shown on hover.
    """
    page = re.sub(r"<(script|style|pre|code)\b.*?</\1>", " ", page, flags=re.DOTALL)
    attributes = re.findall(r'\s(?:aria-label|title|alt)="([^"]*)"', page)
    return unescape(" ".join([re.sub(r"<[^>]*>", " ", page.replace("<wbr>", "")), *attributes]))
