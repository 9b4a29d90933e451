"""What serving costs: images a second through `thaw serve`, beside the bare classifier on the same files.

    python -m bench.serving runs/train-1 IMAGES --rounds 5

The server runs as its own process on this machine and shares its cores with the clients that ask it, each over one
connection, one image a request. The bare classifier reads and classifies the same files with `predict_files`, through
the same engine. The two take turns, so that whatever else the machine does falls on both.
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

from thaw.bundle import bundle_of
from thaw.data.layouts import images_under
from thaw.pipeline import load
from thaw.prediction.predict import predict_files
from thaw.serve.server import fastest_predictor

BATCH = 16


@contextlib.contextmanager
def server(trained: Path, clients: int) -> Iterator[int]:
    """The port of `thaw serve` in a process of its own."""
    words = ["serve", str(trained), "--port", "0", "--batch", str(BATCH), "--queue", str(max(64, clients))]
    program = "from thaw.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline().split()[1].rstrip("/").rpartition(":")[2])
        while not _answers(port):
            time.sleep(0.1)
        yield port
        process.terminate()


def _answers(port: int) -> bool:
    wire = http.client.HTTPConnection("127.0.0.1", port)
    try:
        wire.request("GET", "/ready")
        return wire.getresponse().status == 200
    except OSError:
        return False
    finally:
        wire.close()


def ask_all(port: int, files: Sequence[Path]) -> None:
    """Ask for some files, one after the other, over one connection."""
    wire = http.client.HTTPConnection("127.0.0.1", port)
    for file in files:
        wire.request("POST", "/predict", file.read_bytes())
        reply = wire.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{file}: {reply.status} {body.decode()}")
    wire.close()


def served(port: int, files: Sequence[Path], clients: int) -> float:
    """Images a second of the server, asked by so many clients at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(ask_all, port, files[number::clients]) for number in range(clients)]:
            done.result()
    return len(files) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="a finished run or a bundle")
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--count", type=int, default=384, help="images in a round; files are repeated as needed")
    parser.add_argument("--clients", type=int, default=48, help="clients that ask at once")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    files = list(islice(cycle(images_under(asked.images)), asked.count))
    classifier = load(asked.trained)
    predictor = fastest_predictor(classifier, bundle_of(asked.trained))
    ratios = []
    with server(asked.trained, asked.clients) as port:
        served(port, files[: 4 * BATCH], asked.clients)
        for _ in range(asked.rounds):
            began = time.perf_counter()
            for _prediction in predict_files(classifier, files, BATCH, predictor):
                pass
            bare = len(files) / (time.perf_counter() - began)
            through = served(port, files, asked.clients)
            ratios.append(through / bare)
            print(f"bare {bare:.1f} images/s, served {through:.1f} images/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
