"""Studio on a real socket, for a browser."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.browsing import served
from thaw.studio.access import StudioAccess
from thaw.studio.app import LIMITS, Quiet, create_app
from thaw.studio.workspace import Workspace
from thaw.web.listening import bounded_server


@contextmanager
def running(workspace: Workspace, computes: bool = False) -> Iterator[str]:
    """The address of a server; it is stopped as by a signal. Unless it computes, what is computed is given."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        access = StudioAccess(listening.getsockname()[1])
        server = bounded_server(create_app(workspace, access), LIMITS, Quiet())
        workspace.is_stopping = lambda: server.should_exit
        if not computes:
            workspace.start = lambda: None  # type: ignore[method-assign]
        with served(server, listening):
            yield f"http://127.0.0.1:{access.port}/?token={access.token}"


def tab_to(page: Any, selector: str, backwards: bool = False) -> None:
    """Press Tab until an element has the focus; whatever has it on the way is seen to have it."""
    for _ in range(150):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        has_focus, is_seen, name = page.evaluate(
            """selector => {
                const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
                const shown = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 && box.width > 0;
                return [one.matches(selector), one === document.body || shown, one.outerHTML.slice(0, 200)];
            }""",
            selector,
        )
        assert is_seen, name
        if has_focus:
            return
    raise AssertionError(f"Tab does not lead to {selector}")
