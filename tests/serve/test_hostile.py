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
    """`thaw serve` as a person starts it."""

    url: str
    pid: int

    def memory_mb(self) -> float:
        """Memory that is resident now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
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


def complaint(status: int, content: bytes, is_head: bool) -> str:
    """What is wrong with a refusal, or nothing."""
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


def test_hostile_requests_get_one_sentence_and_leave_the_server_as_it_was(
    server: Process, photos: dict[str, bytes]
) -> None:
    hostile = hostile_requests(photos, INFER)
    assert len(hostile) > 300
    memory, wrong = [], {}
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(3):
            for one in hostile:
                said = client.request(one.method, one.path, content=one.body, headers=one.headers)
                if why := complaint(said.status_code, said.content, one.method == "HEAD"):
                    wrong[one.name] = why
            memory.append(server.memory_mb())
            assert client.post("/predict", content=photos["PNG"]).status_code == 200
        assert "thaw_errors_total 0.0" in client.get("/metrics").text
        assert "thaw_queue_images 0.0" in client.get("/metrics").text
    assert not wrong
    assert memory[-1] - memory[0] < ALLOWED_GROWTH_MB, memory


def test_bytes_that_are_no_request_are_refused(server: Process) -> None:
    wrong = {
        name: said[:100]
        for name, raw in raw_requests().items()
        if not (said := converse(server.url, raw)).startswith(b"HTTP/1.1 4") or b"Traceback" in said
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
        "name": st.text(max_size=5) | JSON,
        "datatype": st.sampled_from(["UINT8", "BYTES"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=5) | JSON,
        "data": st.lists(st.integers(-1, 256), max_size=30) | JSON,
    }
)


@FUZZ
@given(data=st.data())
def test_a_file_changed_anywhere_is_answered_or_refused(
    server: Process, photos: dict[str, bytes], data: st.DataObject
) -> None:
    file = bytearray(photos[data.draw(st.sampled_from(sorted(photos)))])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), max_size=20)):
        file[place] = value
    said = httpx.post(f"{server.url}/predict", content=bytes(file))
    assert said.status_code == 200 or not complaint(said.status_code, said.content, False)


@FUZZ
@given(body=st.binary(max_size=400), path=st.sampled_from(["/predict", "/explain", INFER]))
def test_bytes_are_refused(server: Process, body: bytes, path: str) -> None:
    said = httpx.post(server.url + path, content=body)
    assert not complaint(said.status_code, said.content, False)


@FUZZ
@given(tensor=TENSOR, more=st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON, max_size=2))
def test_any_request_is_answered_or_refused(server: Process, tensor: Any, more: dict[str, Any]) -> None:
    said = httpx.post(server.url + INFER, json={"inputs": [tensor], **more})
    assert said.status_code == 200 or not complaint(said.status_code, said.content, False)


def test_a_request_cut_off_by_its_sender_costs_nothing(server: Process, photo: bytes) -> None:
    import socket

    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"inputs": [{"data": [base64.b64encode(photo).decode()]}]}).encode()
    for cut in range(1, len(body), max(1, len(body) // 50)):
        with socket.create_connection(("127.0.0.1", port)) as wire:
            head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            wire.sendall(head + body[:cut])
    assert httpx.post(f"{server.url}/predict", content=photo).status_code == 200
    assert "thaw_errors_total 0.0" in httpx.get(f"{server.url}/metrics").text
