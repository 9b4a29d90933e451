"""Starts Studio: open the project, listen, print the address, open the browser."""

from __future__ import annotations

import sys
import webbrowser
from contextlib import suppress

from thaw.studio.access import StudioAccess
from thaw.studio.app import LIMITS, Quiet, create_app
from thaw.studio.workspace import Workspace
from thaw.web.hosts import LOOPBACK
from thaw.web.listening import Address, bounded_server, listen, url_of


def run_studio(workspace: Workspace, address: Address, opens_browser: bool) -> None:
    """Serve a workspace until interrupted.

    Args:
        workspace: The project.
        address: Where to listen.
        opens_browser: Whether the browser of this machine is opened.

    Raises:
        ServeError: The address is not available.
    """
    with listen(address) as listening:
        port = listening.getsockname()[1]
        access = StudioAccess(port, (*LOOPBACK, address.host_in_url))
        url = f"{url_of(address, listening)}?token={access.token}"
        for note in workspace.notes:
            print(note, file=sys.stderr)
        print(f"Studio: {url} (Ctrl+C to stop)", flush=True)
        if opens_browser:
            with suppress(webbrowser.Error):
                webbrowser.open(url)
        server = bounded_server(create_app(workspace, access), LIMITS, Quiet())
        workspace.is_stopping = lambda: server.should_exit
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
