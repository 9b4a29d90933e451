"""What puts a classifier to work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from thaw.cli.app import Trained, app, field_of, on_stderr
from thaw.recipe import Recipe


@app.command()
def predict(
    trained: Trained,
    photos: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for them.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write, .csv or .parquet; CSV on standard output without it.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What runs the network; auto: the fastest found equal to pytorch-fp32.")
    ] = "auto",
    device: Annotated[str, typer.Option(help=str(field_of("device").description))] = "auto",
    shard: Annotated[
        str, typer.Option(help="I/N: classify only the I-th of N parts, so that N processes or machines share the job.")
    ] = "1/1",
    mirrored: Annotated[
        bool,
        typer.Option("--mirrored", help="Average with the mirror image, in twice the time."),
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=32, max=2048, help="Look at pictures of this side, in pixels.", show_default=False)
    ] = None,
) -> None:
    """Classify images: one row per file, in order; a file that cannot be read is a row with its reason.

    With --out, a command that was cut short goes on when it is given again.
    """
    from thaw.bundle import bundle_of, digest_of
    from thaw.cache import cache_folder
    from thaw.pipeline import load
    from thaw.prediction.job import PredictJob, Shard, write_predictions

    settings = Recipe().with_settings({"engine": engine, "device": device})
    asked = PredictJob(tuple(photos), out, Shard.parse(shard), settings.engine, settings.device, mirrored, size)
    reporter = on_stderr()
    classifier = load(trained)
    try:
        done, failed = write_predictions(classifier, digest_of(bundle_of(trained)), asked, cache_folder(), reporter)
    finally:
        reporter.close()
    print(f"{done} images classified, {failed} could not be read", file=sys.stderr)


@app.command()
def export(
    trained: Trained,
    to: Annotated[str, typer.Option(help="onnx, openvino, torch or triton.")],
    out: Annotated[Path, typer.Option(help="The file (onnx, torch) or model folder (openvino, triton) to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="In 8-bit integers: smaller, perhaps faster.")] = False,
    images: Annotated[Path | None, typer.Option(help="Labelled images that calibrate and judge int8.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of accuracy that int8 may cost.")] = 0.5,
) -> None:
    """Write a trained classifier for another engine, and certify that it gives the same probabilities.

    The model takes uint8 RGB images of any size; resizing, cropping and normalising are part of it.
    """
    from thaw.bundle import bundle_of
    from thaw.errors import ExportError
    from thaw.export.export import export_bundle, export_int8

    if int8 != (images is not None):
        raise ExportError("export: --int8 and --images FOLDER go together")
    bundle = bundle_of(trained)
    done = export_int8(bundle, to, out, images, max_drop) if images else export_bundle(bundle, to, out)
    print(f"{done.path}: {done.size / 1e6:.1f} MB; {done.hint}")
    print(f"certified on {done.certificate.images} images: probabilities differ by at most {done.certificate.gap:.2g}")
    if done.quantised:
        print(f"int8: ranges from {done.quantised.calibrated} images, compared on {done.quantised.measured} others")
        for title, quality in (("before", done.quantised.before), ("after", done.quantised.after)):
            print(
                f"  {title:6}  {quality.size / 1e6:8.1f} MB  {quality.latency_ms:8.1f} ms an image  "
                f"accuracy {quality.accuracy:.1%}"
            )


@app.command()
def serve(
    trained: Trained,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine a token is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that callers must show; or THAW_TOKEN in the environment.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in /v2/models/NAME; that of the run.")] = None,
    batch: Annotated[int, typer.Option(help="Images classified at once, at most.")] = 16,
    queue: Annotated[int, typer.Option(help="Images accepted and not yet answered, at most; more are refused.")] = 64,
    body_mb: Annotated[float, typer.Option(help="Megabytes that one request may have.")] = 16.0,
) -> None:
    """Answer over HTTP: a page for people, /predict, and the Open Inference Protocol under /v2."""
    from thaw.errors import ServeError

    try:
        from thaw.serve.limits import Limits
        from thaw.serve.server import Address
        from thaw.serve.server import serve as listen
    except ModuleNotFoundError as error:
        raise ServeError(f"thaw serve needs {error.name}: pip install 'thaw-vision[serve]'") from error
    limits = Limits(batch=batch, queue=queue, body_bytes=int(body_mb * (1 << 20)))
    listen(trained, Address(host, port), limits, token_file, name)


@app.command()
def push(
    trained: Trained,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub; made if needed.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
) -> None:
    """Upload a bundle to a model hub (huggingface.co, or HF_ENDPOINT); hub:OWNER/NAME then names it everywhere."""
    from thaw.pipeline import push as upload

    print(upload(trained, name, private=not public))
