import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.hostile import hostile_requests, raw_requests
from tests.serve.test_guard import converse

ALLOWED_GROWTH_MB = 60
INFER = "/v2/models/steel/infer"


@dataclass(frozen=True)
class Process:
    """`thaw serve` in a process of its own."""

    url: str
    pid: int

    def memory_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Process]:
    program = "from thaw.cli import main; main()"
    words = ["serve", str(bundle), "--port", "0", "--name", "steel", "--queue", "8", "--batch", "4"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        url = process.stdout.readline().split()[1].rstrip("/")
        while True:
            try:
                httpx.get(f"{url}/ready").raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None
        yield Process(url, process.pid)
        process.terminate()
        assert process.wait(20) in (0, -15)


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as made:
        yield made


def complaint(status: int, content: bytes, is_head: bool) -> str:
    """What is wrong with a refusal; empty if nothing is."""
    if not 400 <= status < 500:
        return f"status {status}: {content[:200]!r}"
    if is_head:
        return ""
    try:
        sentence = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return f"not a sentence: {content[:200]!r}"
    leaks = [word for word in ("Traceback", "site-packages", "/tmp", ".py", "object at 0x", "\n") if word in sentence]
    return f"leaks {leaks}: {sentence}" if leaks or len(sentence) > 400 else ""


def test_hostile_requests_get_one_sentence_and_leave_the_server_unaffected(
    server: Process, photos: dict[str, bytes]
) -> None:
    hostile = hostile_requests(photos, INFER)
    assert len(hostile) > 300
    memory, wrong = [], {}
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(3):
            for one in hostile:
                reply = client.request(one.method, one.path, content=one.body, headers=one.headers)
                if why := complaint(reply.status_code, reply.content, one.method == "HEAD"):
                    wrong[one.name] = why
            memory.append(server.memory_mb())
            assert client.post("/predict", content=photos["PNG"]).status_code == 200
        assert "thaw_errors_total 0.0" in client.get("/metrics").text
        assert "thaw_queue_images 0.0" in client.get("/metrics").text
    assert not wrong
    assert memory[-1] - memory[0] < ALLOWED_GROWTH_MB, memory


def test_malformed_http_is_refused(server: Process) -> None:
    wrong = {
        name: reply[:100]
        for name, raw in raw_requests().items()
        if not (reply := converse(server.url, raw)).startswith(b"HTTP/1.1 4") or b"Traceback" in reply
    }
    assert not wrong
    assert httpx.get(f"{server.url}/ready").status_code == 200


FUZZ = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.just("images") | JSON,
        "datatype": st.sampled_from(["UINT8", "BYTES"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=5) | JSON,
        "data": st.lists(st.integers(-1, 256), max_size=30) | JSON,
    }
)


@FUZZ
@given(data=st.data())
def test_a_corrupted_file_is_classified_or_refused(
    client: httpx.Client, photos: dict[str, bytes], data: st.DataObject
) -> None:
    file = bytearray(photos[data.draw(st.sampled_from(sorted(photos)))])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), max_size=20)):
        file[place] = value
    reply = client.post("/predict", content=bytes(file))
    assert reply.status_code == 200 or not complaint(reply.status_code, reply.content, False)


@FUZZ
@given(body=st.binary(max_size=400), path=st.sampled_from(["/predict", "/explain", INFER]))
def test_random_bytes_are_refused(client: httpx.Client, body: bytes, path: str) -> None:
    reply = client.post(path, content=body)
    assert not complaint(reply.status_code, reply.content, False)


@FUZZ
@given(tensor=TENSOR, more=st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON, max_size=2))
def test_any_json_request_is_answered_or_refused(client: httpx.Client, tensor: Any, more: dict[str, Any]) -> None:
    reply = client.post(INFER, json={"inputs": [tensor], **more})
    assert reply.status_code == 200 or not complaint(reply.status_code, reply.content, False)


@FUZZ
@given(cut=st.integers(0, 400), more=st.binary(max_size=9), declared=st.integers(-2, 400), size=st.integers(-2, 60))
def test_any_binary_request_is_answered_or_refused(
    client: httpx.Client, cut: int, more: bytes, declared: int, size: int
) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "parameters": {"binary_data_size": size}}
    body = (json.dumps({"inputs": [tensor]}).encode() + bytes(12))[:cut] + more
    headers = {"Inference-Header-Content-Length": str(declared)}
    reply = client.post(INFER, content=body, headers=headers)
    assert reply.status_code == 200 or not complaint(reply.status_code, reply.content, False)


def test_a_truncated_request_is_harmless(server: Process, photo: bytes) -> None:
    import socket

    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"inputs": [{"data": [base64.b64encode(photo).decode()]}]}).encode()
    for cut in range(1, len(body), max(1, len(body) // 50)):
        with socket.create_connection(("127.0.0.1", port)) as wire:
            head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            wire.sendall(head + body[:cut])
    assert httpx.post(f"{server.url}/predict", content=photo).status_code == 200
    assert "thaw_errors_total 0.0" in httpx.get(f"{server.url}/metrics").text
