"""Throughput of `thaw serve`, compared with that of the classifier called directly on the same files.

    python -m bench.serving runs/train-1 IMAGES --rounds 5

The server runs in its own process and shares the cores of this machine with its clients, each of which sends one image
per request over one connection. The direct measurement reads and classifies the same files with `predict_files`,
through the same engine. The two alternate, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from thaw.bundle_path import bundle_of
from thaw.data.walk import Omitted, images_below
from thaw.pipeline import load
from thaw.prediction.predict import predict_files
from thaw.serve.server import fastest_predictor

BATCH = 16


@contextlib.contextmanager
def server(trained: Path, clients: int) -> Iterator[int]:
    """Run `thaw serve` in a process of its own; yields its port."""
    words = ["serve", str(trained), "--port", "0", "--batch", str(BATCH), "--queue", str(max(64, clients))]
    program = "from thaw.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            port = int(process.stdout.readline().split()[1].rstrip("/").rpartition(":")[2])
            while not _is_ready(port):
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def send_all(port: int, files: Sequence[Path]) -> None:
    """Classify files one after the other over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for file in files:
        connection.request("POST", "/predict", file.read_bytes())
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{file}: {reply.status} {body.decode()}")
    connection.close()


def served(port: int, files: Sequence[Path], clients: int) -> float:
    """Images per second of the server with some number of concurrent clients."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(send_all, port, files[number::clients]) for number in range(clients)]:
            done.result()
    return len(files) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="a finished run or a bundle")
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--count", type=int, default=384, help="images per round; files are repeated as needed")
    parser.add_argument("--clients", type=int, default=48, help="concurrent clients")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = islice(cycle(images_below(arguments.images, Omitted())), arguments.count)
    files = [arguments.images / file for file in found]
    classifier = load(arguments.trained)
    predictor = fastest_predictor(classifier, bundle_of(arguments.trained))
    ratios = []
    with server(arguments.trained, arguments.clients) as port:
        served(port, files[: 4 * BATCH], arguments.clients)
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            for _prediction in predict_files(classifier, files, BATCH, predictor):
                pass
            direct = len(files) / (time.perf_counter() - began)
            through_server = served(port, files, arguments.clients)
            ratios.append(through_server / direct)
            print(
                f"direct {direct:.1f} images/s, server {through_server:.1f} images/s, ratio {ratios[-1]:.3f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
