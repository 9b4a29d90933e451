import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serve.conftest import running
from thaw.serve.access import AccessPolicy
from thaw.serve.limits import Limits
from thaw.serve.server import service_of

TOKEN = "a-token-of-some-length"


def converse(url: str, *pieces: bytes, pause: float = 0.0, patience: float = 8.0) -> bytes:
    """Send pieces over a raw socket and read until the server closes it."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=patience) as wire:
        reply = b""
        try:
            for piece in pieces:
                wire.sendall(piece)
                time.sleep(pause)
        except OSError:
            pass
        try:
            while chunk := wire.recv(65536):
                reply += chunk
        except ConnectionResetError:
            pass
        return reply


def test_all_paths_but_the_probes_and_the_page_need_a_token(bundle: Path, photo: bytes) -> None:
    with running(service_of(bundle, Limits()), AccessPolicy(TOKEN)) as url:
        for path in ("/", "/health", "/ready", "/v2/health/live", "/v2/health/ready"):
            assert httpx.get(url + path).status_code == 200
        wrong = (None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer é")
        for path in ("/metrics", "/v2", "/v2/models/x", "/nowhere"):
            for given in wrong:
                headers = {} if given is None else {"Authorization": given.encode()}
                reply = httpx.get(url + path, headers=headers)
                assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
        assert httpx.post(f"{url}/predict", content=photo).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}", "Host": "any.name.example"}
        assert httpx.post(f"{url}/predict", content=photo, headers=right).status_code == 200


def test_without_a_token_other_host_names_are_refused(url: str) -> None:
    for name in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "",
        "[::1",
        "127.0.0.1@x",
    ):
        assert httpx.get(f"{url}/health", headers={"Host": name}).status_code == 400
    for name in ("localhost", "localhost:9", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80"):
        assert httpx.get(f"{url}/health", headers={"Host": name}).status_code == 200


def test_a_body_with_too_large_a_declared_length_is_refused_before_it_is_read(url: str) -> None:
    began = time.perf_counter()
    reply = converse(url, b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 413 ") and time.perf_counter() - began < 5


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20, 40 << 20])
def test_too_large_a_body_is_refused_with_and_without_a_declared_length(url: str, size: int) -> None:
    assert httpx.post(f"{url}/predict", content=bytes(size)).status_code == 413
    pieces = (bytes(1 << 16) for _ in range(-(-size // (1 << 16))))
    assert httpx.post(f"{url}/predict", content=pieces).status_code == 413


def test_a_chunked_body_is_read_completely(url: str, photo: bytes) -> None:
    pieces = (photo[at : at + 100] for at in range(0, len(photo), 100))
    assert httpx.post(f"{url}/predict", content=pieces).status_code == 200


def test_a_slow_body_times_out(url: str) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    began = time.perf_counter()
    reply = converse(url, head, *[b"x"] * 20, pause=0.1)
    assert reply.startswith(b"HTTP/1.1 408 ") and b"slow" not in reply and time.perf_counter() - began < 4


def test_slow_headers_time_out_on_a_new_and_on_a_reused_connection(url: str) -> None:
    slow = [b"GET /health HTTP/1.1\r\n", *[b"a: b\r\n"] * 20]
    assert converse(url, *slow, pause=0.1).startswith(b"HTTP/1.1 408 ")
    reply = converse(url, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", *slow, pause=0.1)
    assert reply.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in reply
    assert converse(url).startswith(b"HTTP/1.1 408 ")


def test_too_large_headers_are_refused(url: str) -> None:
    assert httpx.get(f"{url}/health", headers={"X": "y" * 20_000}).status_code == 431
    assert httpx.get(f"{url}/health?{'y' * 20_000}").status_code == 431
    endless = converse(url, b"GET /health HTTP/1.1\r\n", *[b"X: " + b"y" * 4000 + b"\r\n"] * 60)
    assert endless.startswith(b"HTTP/1.1 4")


def test_connections_beyond_the_limit_are_refused_with_retry_after(bundle: Path) -> None:
    with running(service_of(bundle, Limits(connections=4))) as url:
        place = urlsplit(url)
        held = [socket.create_connection((place.hostname, place.port)) for _ in range(4)]
        try:
            time.sleep(0.2)
            reply = httpx.get(f"{url}/health")
            assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        finally:
            for wire in held:
                wire.close()
        time.sleep(0.2)
        assert httpx.get(f"{url}/health").status_code == 200


def test_the_total_size_of_all_bodies_is_bounded(bundle: Path) -> None:
    limits = Limits(body_bytes=1 << 20, held_bytes=1 << 20, body_seconds=3)
    with running(service_of(bundle, limits)) as url:
        place = urlsplit(url)
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        with socket.create_connection((place.hostname, place.port)) as wire:
            wire.sendall(head + bytes(900_000))
            time.sleep(0.3)
            reply = httpx.post(f"{url}/predict", content=bytes(500_000))
            assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        time.sleep(0.3)
        assert httpx.post(f"{url}/predict", content=bytes(500_000)).status_code == 422


def test_a_refused_connection_gets_its_reply_although_it_sends_a_body_that_nobody_reads(
    bundle: Path, photo: bytes
) -> None:
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000\r\n\r\n"
    with running(service_of(bundle, Limits(connections=2))) as url:
        place = urlsplit(url)
        held = [socket.create_connection((place.hostname, place.port)) for _ in range(2)]
        time.sleep(0.2)
        replies = [converse(url, post, *[bytes(100_000)] * 6, pause=0.01) for _ in range(4)]
        for wire in held:
            wire.close()
        time.sleep(0.2)
        assert httpx.post(f"{url}/predict", content=photo).status_code == 200
    for reply in replies:
        assert reply.startswith(b"HTTP/1.1 503 ") and reply.endswith(b'"too many connections; try again in a moment"}')


def test_malformed_http_is_refused_in_one_sentence_although_more_follows(url: str) -> None:
    reply = converse(url, b"nonsense\r\n\r\n", *[bytes(100_000)] * 4, pause=0.01)
    assert reply.startswith(b"HTTP/1.1 400 ") and b'{"error": "the request is not valid HTTP/1.1' in reply
    chunks = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nnot"
    assert converse(url, chunks, b"hing!!\r\nxyz\r\n", pause=0.1).startswith(b"HTTP/1.1 400 ")


def test_bodies_that_stall_keep_no_other_request_waiting(bundle: Path, photo: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
    with running(service_of(bundle, Limits(connections=12, bodies=4))) as url:
        place = urlsplit(url)
        stalled = [socket.create_connection((place.hostname, place.port)) for _ in range(10)]
        try:
            for wire in stalled:
                wire.sendall(head)
            time.sleep(0.2)
            assert httpx.get(f"{url}/health").status_code == 200
            time.sleep(1.2)
            assert httpx.post(f"{url}/predict", content=photo).status_code == 200
            replies = []
            for wire in stalled:
                wire.settimeout(0.3)
                try:
                    replies.append(wire.recv(12))
                except TimeoutError:
                    replies.append(b"")
        finally:
            for wire in stalled:
                wire.close()
    assert replies.count(b"HTTP/1.1 503") == 6 and replies.count(b"HTTP/1.1 408") == 1
