import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

import thaw
from tests.serve.conftest import NAME, running
from thaw.classifier.outputs import ModelOutputs
from thaw.features.engines import REFERENCE
from thaw.prediction.predictor import Predictor
from thaw.serve.limits import Limits
from thaw.serve.service import Service

SLOWNESS = 0.05
"""Seconds that the slow classifier sleeps per image."""


def slow_service(bundle: Path, limits: Limits, seconds: float = SLOWNESS) -> Service:
    classifier = thaw.load(bundle)
    predictor = Predictor(classifier, REFERENCE, classifier.device)

    def infer_slowly(pixels: np.ndarray) -> ModelOutputs:
        time.sleep(seconds * len(pixels))
        return predictor.outputs(pixels)

    return Service(classifier, NAME, limits, infer_slowly)


async def ask(client: httpx.AsyncClient, photo: bytes) -> tuple[int, float, str | None]:
    began = time.perf_counter()
    reply = await client.post("/predict", content=photo)
    if reply.status_code == 200:
        assert reply.json()["model"] == NAME
    return reply.status_code, time.perf_counter() - began, reply.headers.get("retry-after")


async def ask_at_once(url: str, photo: bytes, count: int) -> list[tuple[int, float, str | None]]:
    bounds = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=url, limits=bounds, timeout=30) as client:
        return await asyncio.gather(*(ask(client, photo) for _ in range(count)))


def test_under_overload_some_requests_are_refused_and_the_others_wait_at_most_for_the_queue(
    bundle: Path, photo: bytes
) -> None:
    limits = Limits(batch=4, queue=8)
    with running(slow_service(bundle, limits)) as url:
        replies = asyncio.run(ask_at_once(url, photo, 100))
        after = httpx.post(f"{url}/predict", content=photo)
        text = httpx.get(f"{url}/metrics").text
    statuses = Counter(status for status, _, _ in replies)
    assert statuses[200] >= limits.queue and statuses[200] + statuses[503] == 100 and statuses[503] > 0
    assert all(retry and int(retry) >= 1 for status, _, retry in replies if status == 503)
    assert max(seconds for status, seconds, _ in replies if status == 200) < limits.queue * SLOWNESS + 2.0
    assert after.status_code == 200
    assert f'thaw_refusals_total{{reason="saturated"}} {statuses[503]:.1f}' in text
    assert f"thaw_images_total {statuses[200] + 1:.1f}" in text


def test_accepted_requests_are_completed_when_the_server_stops(bundle: Path, photo: bytes) -> None:
    count = 12
    with ThreadPoolExecutor(1) as pool:
        with running(slow_service(bundle, Limits(batch=4, queue=16), seconds=0.2)) as url:
            asking = pool.submit(lambda: asyncio.run(ask_at_once(url, photo, count)))
            while f"thaw_queue_images {count}.0" not in httpx.get(f"{url}/metrics").text:
                assert not asking.done()
        assert [status for status, _, _ in asking.result(30)] == [200] * count
