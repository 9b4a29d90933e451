"""Windows of a browser, without the browser."""

from typing import Any

import httpx
from starlette.testclient import TestClient

from thaw.studio.access import StudioAccess
from thaw.studio.app import create_app
from thaw.studio.workspace import Workspace

PORT = 8123
ORIGIN = f"http://127.0.0.1:{PORT}"


class Client:
    """Sends what the page of a workspace sends; `access` has its secrets."""

    def __init__(self, workspace: Workspace, is_known: bool = True) -> None:
        self.workspace = workspace
        self.access = StudioAccess(PORT)
        # Nothing is started: what needs features is not ready.
        self.http = TestClient(create_app(workspace, self.access), ORIGIN, follow_redirects=False)
        if is_known:
            reply = self.http.get("/", params={"token": self.access.token})
            assert reply.status_code == 303 and reply.headers["location"] == "/"

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON at a path, which has to be there."""
        reply = self.http.get(path, params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """The reply to a change."""
        own = {"Origin": ORIGIN, "X-Thaw-CSRF": self.access.csrf, **headers}
        return self.http.post(path, json={} if body is None else body, headers=own)

    def upload(
        self, path: str, content: bytes, at: int = 0, size: int | None = None, key: str = "0123456789abcdef"
    ) -> httpx.Response:
        """Send a file that was dropped, or a part of it."""
        query = {"path": path, "key": key, "at": at, "size": len(content) if size is None else size}
        headers = {"Origin": ORIGIN, "X-Thaw-CSRF": self.access.csrf, "Content-Type": "application/octet-stream"}
        return self.http.post("/api/uploads", params=query, content=content, headers=headers)

    def edit(self, ids: list[int], to: Any, seen: Any = ()) -> httpx.Response:
        """Give images a mark, where their present one is seen unless another is given."""
        marks = (
            {row: self.workspace.labels.mark(row).to_json() for row in ids} if seen == () else dict.fromkeys(ids, seen)
        )
        return self.post("/api/edits", {"images": [{"id": row, "mark": marks[row]} for row in ids], "to": to})
