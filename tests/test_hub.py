import base64
import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

import thaw
from thaw.bundle import check_sums
from thaw.bundle_path import bundle_of
from thaw.cli import main
from thaw.errors import BundleError
from thaw.hub import fetch
from thaw.pipeline import load, push
from thaw.reports.model_card import for_hub
from thaw.run_folder import RunFolder
from thaw.serve.limits import Limits
from thaw.serve.server import service_of

NAME = "factory/steel"


class Hub:
    """A fake hub: the files of one repository, created repositories and requested paths."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.requested: list[str] = []
        self.is_gone = False
        self.broken: set[str] = set()
        """Files whose download breaks off."""
        self.seconds = 0.0
        """How long it takes to say what is in the repository."""

    @property
    def revision(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def info(self) -> dict[str, Any]:
        siblings = [{"rfilename": name, "size": len(data)} for name, data in sorted(self.files.items())]
        return {"id": NAME, "modelId": NAME, "sha": self.revision, "siblings": siblings, "private": True, "tags": []}

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in sorted(self.files.items())
        ]

    def commit(self, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def reply(self, value: Any, status: int = 200, **headers: str) -> None:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            hub.requested.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self.reply({"url": f"http://{self.headers['Host']}/{NAME}"})
            elif self.path == "/api/validate-yaml":
                self.reply({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = [
                    {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for item in json.loads(body)["files"]
                ]
                self.reply({"files": files})
            elif "/commit/" in self.path:
                hub.commit(body)
                self.reply({"commitUrl": f"http://{self.headers['Host']}/{NAME}/commit/1", "commitOid": hub.revision})
            else:
                self.reply({"error": "unknown"}, 404)

        def do_GET(self) -> None:
            hub.requested.append(self.path)
            path = self.path.partition("?")[0]
            if "/resolve/" in path:
                name = path.partition("/resolve/")[2].partition("/")[2]
                data = hub.files.get(name)
                if name in hub.broken:
                    self.reply({"error": "no space left"}, 507)
                elif data is None:
                    self.reply({"error": "no such file"}, 404, X_Error_Code="EntryNotFound")
                else:
                    self.reply(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=hub.revision)
            elif "/tree/" in path:
                self.reply(hub.tree())
            elif path.startswith(f"/api/models/{NAME}") and not hub.is_gone:
                time.sleep(hub.seconds)
                self.reply(hub.info())
            else:
                self.reply({"error": "no such repository"}, 404, X_Error_Code="RepoNotFound")

        def do_HEAD(self) -> None:
            self.do_GET()

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, accessed through the real client."""
    fake = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(fake))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_pushed_bundle_gives_the_same_predictions_by_its_name(trained: RunFolder, images: Path, hub: Hub) -> None:
    assert NAME in push(trained.path, NAME)
    created = hub.created[0]
    assert created["name"] == "steel" and (created.get("private") or created.get("visibility") == "private")
    for file in (item for item in trained.model.rglob("*") if item.is_file()):
        assert hub.files[file.relative_to(trained.model).as_posix()] == file.read_bytes()
    files = sorted(images.rglob("*.png"))[::9]
    assert thaw.predict(thaw.load(f"hub:{NAME}"), files) == thaw.predict(thaw.load(trained.path), files)
    check_sums(bundle_of(Path(f"hub:{NAME}")))


def test_only_the_files_of_the_bundle_are_uploaded(trained: RunFolder, hub: Hub, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.model, tmp_path / "copy"))
    for name in (".env", "notes.txt", "golden/Thumbs.db", ".cache/token"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("private")
    push(copy, NAME)
    own = {file.relative_to(trained.model).as_posix() for file in trained.model.rglob("*") if file.is_file()}
    assert hub.files.keys() == {*own, "README.md"}


def test_the_model_card_has_the_header_of_the_hub(trained: RunFolder, hub: Hub) -> None:
    push(trained.path, f"hub:{NAME}")
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: timm\n") and "pipeline_tag: image-classification" in card
    assert f"thaw predict hub:{NAME}" in card and "calibration error" in card


def test_the_model_card_says_what_timm_loads_of_a_head_on_all_stages(trained: RunFolder) -> None:
    classifier = load(trained.path)
    whole = for_hub(classifier, "", NAME)
    classifier.backbone.use_features("all")
    assert "pretrained=True)\n" in whole
    assert "pretrained=True)  # without its head, head.safetensors\n" in for_hub(classifier, "", NAME)


def test_a_newer_revision_is_used_once_it_is_there(
    trained: RunFolder, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    push(trained.path, NAME)
    first = fetch(f"hub:{NAME}")
    capsys.readouterr()
    assert fetch(f"hub:{NAME}") == first and capsys.readouterr().err == ""
    hub.files["notes.txt"] = b"newer"
    second = fetch(f"hub:{NAME}")
    assert second != first and (second / "notes.txt").read_bytes() == b"newer"


@pytest.mark.parametrize("state", ["away", "gone"])
def test_without_the_hub_the_downloaded_bundle_is_used_and_a_line_says_so(
    trained: RunFolder, hub: Hub, state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push(trained.path, NAME)
    first = fetch(f"hub:{NAME}")
    if state == "away":
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    else:
        hub.is_gone = True
    capsys.readouterr()
    assert fetch(f"hub:{NAME}") == first
    said = capsys.readouterr().err
    assert (
        f"hub:{NAME}: using revision {first.name[:12]}, which was downloaded before" in said and said.count("\n") == 1
    )


def test_an_update_that_breaks_off_leaves_the_bundle_that_was_downloaded_before(
    trained: RunFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push(trained.path, NAME)
    first = fetch(f"hub:{NAME}")
    hub.files["notes.txt"], hub.broken = b"newer", {"notes.txt"}
    for _ in range(2):
        capsys.readouterr()
        assert fetch(f"hub:{NAME}") == first
        assert f"using revision {first.name[:12]}, which was downloaded before" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch(f"hub:{NAME}") == first
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.broken = set()
    second = fetch(f"hub:{NAME}")
    assert (second / "notes.txt").read_bytes() == b"newer"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch(f"hub:{NAME}") == second


def test_a_downloaded_bundle_that_lacks_a_file_is_downloaded_again(trained: RunFolder, hub: Hub) -> None:
    push(trained.path, NAME)
    first = fetch(f"hub:{NAME}")
    (first / "labels.txt").unlink()
    check_sums(fetch(f"hub:{NAME}"))


def test_the_first_download_waits_for_a_slow_hub(trained: RunFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.hub.TIMEOUT_SECONDS", 0.1)
    push(trained.path, NAME)
    hub.seconds = 0.5
    check_sums(fetch(f"hub:{NAME}"))


def test_offline_a_downloaded_bundle_needs_no_network(
    trained: RunFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push(trained.path, NAME)
    first = fetch(f"hub:{NAME}")
    hub.requested.clear()
    capsys.readouterr()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch(f"hub:{NAME}") == first and not hub.requested and capsys.readouterr().err == ""


def test_a_server_is_named_after_the_repository(trained: RunFolder, hub: Hub) -> None:
    push(trained.path, NAME)
    assert service_of(Path(f"hub:{NAME}"), Limits()).name == "steel"


def test_a_name_that_windows_takes_for_a_path_is_downloaded(trained: RunFolder, hub: Hub) -> None:
    push(trained.path, NAME)
    name = PureWindowsPath(f"hub:{NAME}")
    assert "\\" in str(name)
    check_sums(bundle_of(name))  # type: ignore[arg-type]


def test_malformed_names_and_missing_bundles_are_clear_errors(
    hub: Hub, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match="hub:OWNER/NAME"):
        fetch("hub:../../etc")
    monkeypatch.setattr("sys.argv", ["thaw", "predict", "hub:nobody/nothing", str(images)])
    with pytest.raises(SystemExit) as done:
        main()
    printed = capsys.readouterr().err
    assert done.value.code == 2 and "hub:nobody/nothing: cannot be downloaded" in printed and "Traceback" not in printed


def test_a_damaged_bundle_is_not_pushed(trained: RunFolder, hub: Hub, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.model, tmp_path / "copy"))
    (copy / "labels.txt").write_text("other\n")
    with pytest.raises(BundleError, match=r"labels\.txt"):
        push(copy, NAME)
    assert not hub.requested
