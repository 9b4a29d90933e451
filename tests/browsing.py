"""Pages opened in Chromium, and servers on a real socket for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from uvicorn import Server

CHROMIUM = Path("/usr/bin/chromium")
_QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")
_FAKE_CAMERA = ("--use-fake-device-for-media-stream",)
"""A camera that shows a moving disc; pages that have the permission can use it."""


@dataclass
class OpenPage:
    """A page, the URLs that it requested, and the messages of its console, errors and dialogs among them."""

    page: Any
    urls: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM}")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", *_QUIET, *_FAKE_CAMERA])
        yield browser
        browser.close()


@contextmanager
def window(browser: Any, width: int, height: int, **options: Any) -> Iterator[OpenPage]:
    """A page in a window of its own."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    opened = OpenPage(context.new_page())
    opened.page.on("request", lambda request: opened.urls.append(request.url))
    opened.page.on("console", lambda message: opened.console.append(message.text))
    opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
    opened.page.on("dialog", lambda dialog: opened.console.append(f"dialog {dialog.message}"))
    yield opened
    context.close()


@contextmanager
def served(server: "Server", listening: socket) -> Iterator[None]:
    """A server runs within the block; it is stopped as by a signal."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.02)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()
