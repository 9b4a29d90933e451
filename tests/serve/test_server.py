import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bundle_files import with_new_sums
from thaw.cli import main
from thaw.errors import BundleError, ServeError
from thaw.serve import server
from thaw.serve.access import AccessPolicy
from thaw.serve.limits import Limits
from thaw.serve.metrics import Baseline
from thaw.serve.server import access_policy_for, service_of
from thaw.web.listening import Address

TOKEN = "a-token-of-some-length"


def thaw_serve(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["thaw", "serve", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", "", "127.0.0.1.example.org"])
def test_an_address_open_to_other_machines_needs_a_token(host: str) -> None:
    with pytest.raises(ServeError, match="--token-file"):
        access_policy_for(Address(host), None, {})
    assert access_policy_for(Address(host), None, {"THAW_TOKEN": TOKEN}) == AccessPolicy(TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_on_localhost_a_token_is_optional(host: str, tmp_path: Path) -> None:
    assert access_policy_for(Address(host), None, {}).token is None
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert access_policy_for(Address(host), file, {"THAW_TOKEN": "another-token-of-some-length"}) == AccessPolicy(TOKEN)


@pytest.mark.parametrize(
    "token", ["", "short", "with a space in the middle", "line\nbreak-in-the-middle", "schlüssel-mit-umlaut"]
)
def test_malformed_tokens_are_refused(token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    for source in ((file, {}), (None, {"THAW_TOKEN": token})):
        with pytest.raises(ServeError, match="token"):
            access_policy_for(Address(), *source)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("BUNDLE", "--host", "0.0.0.0"), "needs a token"),
        (("BUNDLE", "--token-file", "absent"), "cannot be read"),
        (("BUNDLE", "--port", "TAKEN"), "cannot listen on 127.0.0.1"),
        (("BUNDLE", "--host", "203.0.113.9", "--token-file", "TOKEN"), "cannot listen on 203.0.113.9"),
        (("nowhere", "--port", "0"), "no such run or bundle"),
        (("BUNDLE", "--port", "0", "--name", "a/b"), "letters, digits"),
        (("BUNDLE", "--queue", "2", "--batch", "3"), "at most the queue"),
        (("BUNDLE", "--body-mb", "0"), "the size limit of a request"),
        (("BUNDLE", "--body-mb", "nan"), "--body-mb nan: is no size"),
        (("BUNDLE", "--body-mb", "inf"), "--body-mb inf: is no size"),
    ],
)
def test_a_server_that_cannot_start_gives_the_reason_in_one_sentence(
    words: tuple[str, ...],
    expected: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("THAW_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("token").write_text(TOKEN, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        meant = {"BUNDLE": bundle, "TAKEN": taken.getsockname()[1], "TOKEN": "token"}
        assert thaw_serve(monkeypatch, *(meant.get(word, word) for word in words)) == 2
    said = capsys.readouterr().err
    assert said.startswith("thaw: ") and expected in said and said.count("\n") == 1


def test_a_bundle_that_does_not_reproduce_its_golden_images_is_not_served(bundle: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    golden = changed / "golden" / "golden.json"
    entries = json.loads(golden.read_text())
    entries[0]["probabilities"] = [1.0 - value for value in entries[0]["probabilities"]]
    golden.write_text(json.dumps(entries))
    with_new_sums(changed)
    with pytest.raises(BundleError, match="does not reproduce the probabilities"):
        service_of(changed, Limits())


def test_the_address_is_in_a_file_of_output_as_soon_as_the_server_listens_and_ctrl_c_ends_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, seen = tmp_path / "log", list[str]()

    class Listening:
        def run(self, sockets: list[socket.socket]) -> None:
            seen.append(log.read_text(encoding="utf-8"))
            socket.create_connection(sockets[0].getsockname()).close()
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "server_for", lambda *_: Listening())
    with log.open("w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        server.serve(bundle, Address(port=0), Limits(), name="steel")
    assert seen[0].startswith("steel: http://127.0.0.1:") and seen[0].endswith("/ (Ctrl+C to stop)\n")


def test_a_model_is_named_after_its_run_or_folder(bundle: Path, tmp_path: Path) -> None:
    assert service_of(bundle, Limits()).name == service_of(bundle.parent, Limits()).name == "train-1"
    shutil.copytree(bundle, tmp_path / "plates")
    assert service_of(tmp_path / "plates", Limits()).name == "plates"
    assert service_of(bundle, Limits(), "other").name == "other"


@pytest.mark.parametrize(
    "values", [{}, {"confidence": 1}, {"confidence": "x", "shares": {}}, {"confidence": 1, "shares": 2}, 7]
)
def test_a_malformed_baseline_is_an_error(values: Any) -> None:
    assert Baseline.read({"thaw": {}}) is None
    with pytest.raises(BundleError, match=r"thaw\.baseline"):
        Baseline.read({"thaw": {"baseline": values}})
