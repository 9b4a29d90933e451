"""Commands that use a trained classifier: predict, export, serve, push."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thaw.cli.app import ClusterAddress, Trained, app, field_of, local_copies, on_stderr
from thaw.errors import DataError
from thaw.formats import count, listed, percent
from thaw.recipe import Recipe

if TYPE_CHECKING:
    from thaw.classifier.classifier import Classifier
    from thaw.prediction.job import Classify, PredictJob
    from thaw.progress import Reporter


@app.command()
def predict(
    trained: Trained,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders to search for images.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write, .csv or .parquet; without it, CSV on standard output.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Inference engine; auto: the fastest that agrees with pytorch-fp32.")
    ] = "auto",
    device: Annotated[str, typer.Option(help=str(field_of("device").description))] = "auto",
    shard: Annotated[
        str,
        typer.Option(help="I/N: classify only the I-th of N parts, to split the job across N processes or machines."),
    ] = "1/1",
    mirrored: Annotated[
        bool,
        typer.Option("--mirrored", help="Average with the prediction for the mirror image; takes twice as long."),
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(
            min=32, max=2048, help="Input size in pixels; by default that of the training.", show_default=False
        ),
    ] = None,
    cluster: ClusterAddress = None,
) -> None:
    """Classify images into a table with one row per file; unreadable files have a row with the reason.

    With --out, re-run an interrupted command to resume.
    """
    from thaw.prediction.inputs import check_places

    # Before torch is imported, which takes seconds.
    images = local_copies(images)
    check_places(images)
    from thaw.bundle import digest_of
    from thaw.bundle_path import bundle_of
    from thaw.cache import cache_folder
    from thaw.pipeline import load
    from thaw.prediction.job import PredictJob, Shard, write_predictions

    settings = Recipe().with_settings({"engine": engine, "device": device})
    job = PredictJob(tuple(images), out, Shard.parse(shard), settings.engine, settings.device, mirrored, size)
    reporter = on_stderr()
    bundle = bundle_of(trained)
    classifier = load(bundle)
    with (
        closing(reporter),
        nullcontext() if cluster is None else _on_cluster(cluster, bundle, classifier, job, reporter) as elsewhere,
    ):
        done, failed = write_predictions(classifier, digest_of(bundle), job, cache_folder(), reporter, elsewhere)
    print(f"{count(done, 'image')} classified, {failed:,} could not be read", file=sys.stderr)
    if failed and not done:
        raise DataError(f"predict: no image was classified; the column reason{f' of {out}' if out else ''} says why")


@contextmanager
def _on_cluster(
    address: str, bundle: Path, classifier: Classifier, job: PredictJob, reporter: Reporter
) -> Iterator[Classify]:
    """What classifies on a cluster, once every node has Thaw."""
    from thaw.cluster import connected
    from thaw.cluster_prediction import ClusterClassify

    with connected(address) as cluster:
        cluster.check([])
        reporter.say(cluster.description)
        yield ClusterClassify(cluster, bundle, classifier, job, reporter)


@app.command()
def export(
    trained: Trained,
    to: Annotated[str, typer.Option(help="onnx, openvino, torch, keras, litert or triton.")],
    out: Annotated[
        Path, typer.Option(help="File (onnx, torch, keras, litert) or model folder (openvino, triton) to write.")
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to int8: smaller, often faster.")] = False,
    images: Annotated[Path | None, typer.Option(help="Labelled images to calibrate and test int8 on.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest accepted drop in accuracy by int8, in percentage points; by default 0.5.", show_default=False
        ),
    ] = None,
) -> None:
    """Export a trained classifier to another inference engine, and certify that it gives the same probabilities.

    The exported model takes uint8 RGB images of any size; resizing, cropping and normalisation are part of it. One for
    keras or litert takes them at the model's size. One for keras can be fine-tuned further.
    """
    from thaw import pipeline
    from thaw.errors import ExportError

    if int8 != (images is not None):
        raise ExportError("export: --int8 and --images FOLDER must be used together")
    done = pipeline.export(trained, to, out, images, max_drop)
    print(f"{done.path}: {done.size / 1e6:.1f} MB; {done.hint}")
    if done.decision:
        print(f"decision: {done.decision}, so apply `decision` of its metadata to the probabilities (docs/export.md)")
    # The certificate does not apply to int8.
    subject = "the fp32 graph that it was quantised from is certified" if done.quantisation else "certified"
    certified = count(done.certificate.images, "image")
    print(f"{subject} on {certified}: probabilities differ by at most {done.certificate.max_difference:.2g}")
    if int8_cost := done.quantisation:
        calibrated, tested = count(int8_cost.calibration_images, "image"), count(int8_cost.test_images, "image")
        print(f"int8: calibrated on {calibrated}, compared on {tested} of their own")
        if done.unreadable:
            reasons = listed([f"{file}: {reason}" for file, reason in sorted(done.unreadable.items())])
            print(f"{count(len(done.unreadable), 'labelled image')} cannot be read, excluded: {reasons}")
        for title, quality in (("fp32", int8_cost.before), ("int8", int8_cost.after)):
            print(
                f"  {title}  {quality.size / 1e6:8.1f} MB  {quality.latency_ms:8.1f} ms per image  "
                f"accuracy {percent(quality.accuracy)}"
            )


@app.command()
def serve(
    trained: Trained,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must present; or set THAW_TOKEN.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in /v2/models/NAME; by default that of the run.")] = None,
    batch: Annotated[int, typer.Option(help="Largest batch size.")] = 16,
    queue: Annotated[int, typer.Option(help="Images waiting or being classified; more are refused.")] = 64,
    body_mb: Annotated[float, typer.Option(help="Size limit of one request, in megabytes.")] = 16.0,
) -> None:
    """Serve predictions over HTTP: a web page, /predict, and the Open Inference Protocol under /v2."""
    from thaw.errors import ServeError

    try:
        from thaw.serve.limits import Limits
        from thaw.serve.server import serve as listen
        from thaw.web.listening import Address
    except ModuleNotFoundError as error:
        raise ServeError(f'thaw serve needs {error.name}: pip install "thaw-vision[serve]"') from error
    if not math.isfinite(body_mb):
        raise ServeError(f"--body-mb {body_mb}: is no size in megabytes; give a number such as 16")
    limits = Limits(batch=batch, queue=queue, body_bytes=int(body_mb * (1 << 20)))
    listen(trained, Address(host, port), limits, token_file, name)


@app.command()
def push(
    trained: Trained,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; created if needed.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
) -> None:
    """Upload a bundle to a model hub (huggingface.co, or HF_ENDPOINT); use it anywhere as hub:OWNER/NAME."""
    from thaw.pipeline import push as upload

    print(upload(trained, name, private=not public))
