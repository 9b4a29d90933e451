import pytest

from tests.studio.clients import ORIGIN, PORT, Client
from thaw.studio.access import StudioAccess

PATHS = (
    "/api/state",
    "/api/images",
    "/thumbnails/0/x",
    "/static/main.js",
    "/labels.csv",
    "/class-folders.zip",
    "/api/training/events",
    "/nowhere",
)


@pytest.fixture
def stranger(untouched: Client) -> Client:
    """A window that has not opened the address with the token."""
    return Client(untouched.workspace, is_known=False)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_needs_the_cookie(stranger: Client, path: str) -> None:
    assert stranger.http.get(path).status_code == 401
    assert stranger.http.post(path, headers={"Origin": ORIGIN, "X-Thaw-CSRF": stranger.access.csrf}).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "é", "\ud800", "a" * 5000, "../", "null", "%00"])
def test_another_token_opens_nothing(stranger: Client, token: str) -> None:
    reply = stranger.http.get("/", params={"token": token.encode("utf-8", "surrogatepass")})
    assert reply.status_code == 401 and not reply.cookies and stranger.access.csrf not in reply.text


def test_the_token_is_exchanged_for_a_cookie_that_scripts_and_other_sites_cannot_use(stranger: Client) -> None:
    reply = stranger.http.get("/", params={"token": stranger.access.token})
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and stranger.access.token.lower() not in cookie
    page = stranger.http.get("/")
    assert page.status_code == 200 and stranger.access.token not in page.text


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "thaw-studio-8123=",
        "thaw-studio-8123=x",
        "thaw-studio-8124={cookie}",
        "thaw-studio-8123={token}",
        "thaw-studio-8123={cookie}x",
        "x=thaw-studio-8123={cookie}",
        ";;;=;",
    ],
)
def test_another_cookie_is_refused(stranger: Client, cookie: str) -> None:
    given = cookie.format(cookie=stranger.access.cookie, token=stranger.access.token)
    assert stranger.http.get("/api/state", headers={"Cookie": given}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "", "[::1", "0.0.0.0"])
def test_another_host_name_is_refused(untouched: Client, host: str) -> None:
    for path in ("/", "/api/state"):
        assert untouched.http.get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "x"])
def test_requests_of_other_sites_are_refused(untouched: Client, site: str) -> None:
    assert untouched.http.get("/thumbnails/0/x", headers={"Sec-Fetch-Site": site}).status_code == 403
    assert untouched.post("/api/undo", {"edit": 1}, **{"Sec-Fetch-Site": site}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": f"http://localhost:{PORT}"},
        {"X-Thaw-CSRF": ""},
        {"X-Thaw-CSRF": "x"},
        {"X-Thaw-CSRF": StudioAccess(PORT).csrf},
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/api/edits",
        "/api/undo",
        "/api/piles",
        "/api/uploads",
        "/api/uploads/end",
        "/api/folder-labels",
        "/api/class-folders",
        "/api/training",
        "/api/training/stop",
        "/api/training/plan",
        "/api/training/plan/cancel",
        "/api/training/cancel",
        "/api/influence/train-1",
        "/api/watch",
        "/api/watch/stop",
        "/api/decide/train-1/bundle",
        "/api/ship/promote",
        "/api/ship/rollback",
        "/api/ship/export",
    ],
)
def test_a_change_comes_from_the_page_itself(untouched: Client, path: str, headers: dict[str, str]) -> None:
    assert untouched.post(path, {}, **headers).status_code == 403


def test_a_form_of_another_site_changes_nothing(untouched: Client) -> None:
    reply = untouched.http.post("/api/undo", data={"edit": "1"}, headers={"Origin": "http://evil.example"})
    assert reply.status_code == 403


def test_the_page_may_run_its_own_scripts_only(untouched: Client) -> None:
    reply = untouched.http.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert "<script>" not in reply.text and reply.headers["x-content-type-options"] == "nosniff"


def test_the_page_may_ask_for_the_camera_and_pages_in_it_for_nothing(untouched: Client) -> None:
    policy = untouched.http.get("/").headers["permissions-policy"]
    assert "camera=(self)" in policy and "microphone=()" in policy


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "vendor/../../app.py", "/etc/passwd", "vendor", "", "app.py"]
)
def test_no_other_file_is_sent(untouched: Client, path: str) -> None:
    assert untouched.http.get(f"/static/{path}").status_code == 404


def test_too_large_a_request_is_refused(untouched: Client) -> None:
    assert untouched.post("/api/edits", {"images": [], "to": "x" * (17 << 20)}).status_code == 413
