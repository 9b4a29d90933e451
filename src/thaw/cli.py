"""The command line: one command is one call. Options of `thaw train` are made from the fields of the recipe."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import thaw
from thaw.errors import RecipeError, ThawError
from thaw.recipe import Recipe
from thaw.settings import Section

USER_ERROR, INTERRUPTED = 2, 130
WIDE = 132
"""Columns that the table of models needs; a narrower terminal wraps its lines."""

app = typer.Typer(
    help="Fine-tune a pre-trained CNN on your own labelled images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Runs = Annotated[Path, typer.Option("--runs", help="Folder in which the run makes its own.")]
Trained = Annotated[Path, typer.Argument(help="A run folder, such as runs/train-1, a bundle, or hub:OWNER/NAME.")]

SHORTCUTS = {
    "augment": "augment.preset",
    "image_size": "preprocessing.image_size",
    "strict": "decode.strict",
}
"""Nested settings that are asked for so often that they have an option of their own."""


def main() -> None:
    """Run a command; a mistake that the user can mend is one message and exit code 2, never a traceback."""
    try:
        app()
    except ThawError as error:
        print(f"thaw: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        print("\nthaw: interrupted; a run that was training goes on with --resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _version(wanted: bool) -> None:
    if wanted:
        print(f"thaw {thaw.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def train(
    data: Path, recipe: Path | None, settings: list[str], resume: bool, runs: Path, **options: str | bool | None
) -> None:
    """Fine-tune on a folder of labelled images or a table of them: plan, train in phases, evaluate, keep a bundle.

    DATA is a folder with one folder per class (or train/val/test folders with classes inside), a CSV or Parquet
    table with the columns path and label, or a folder with a Hub metadata file.
    """
    from thaw.data.dataset import Dataset
    from thaw.pipeline import finetune

    wanted = _recipe_from(recipe, settings, options)
    asked = None if resume and wanted is None else wanted or Recipe()
    task = asked.task if asked else "auto"
    finetune(Dataset.open(data, task), asked, runs, resume)


def plan(data: Path, recipe: Path | None, settings: list[str], out: Path, **options: str | bool | None) -> None:
    """Decide all that `thaw train` would decide, with reasons and a forecast, as a recipe file; train nothing."""
    from thaw.data.dataset import Dataset
    from thaw.pipeline import plan as decide

    asked = _recipe_from(recipe, settings, options) or Recipe()
    decide(Dataset.open(data, asked.task), asked, out)


def inspect_(data: Path, recipe: Path | None, settings: list[str], runs: Path, **options: str | bool | None) -> None:
    """Look at a data set before training: counts, duplicates, leaks, wrong labels, similarity, what more would bring.

    Nothing is trained and no file of yours is changed; a page with pictures and a JSON file are written under RUNS.
    """
    from thaw.data.dataset import Dataset
    from thaw.pipeline import inspect as look_at

    asked = _recipe_from(recipe, settings, options) or Recipe()
    look_at(Dataset.open(data, asked.task), asked, runs)


def _recipe_from(file: Path | None, settings: list[str], options: dict[str, str | bool | None]) -> Recipe | None:
    """The recipe that the command line asks for; `None` when it says nothing about it."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None and value is not False:
            changes[SHORTCUTS.get(name, name)] = value
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting}: write it as KEY=VALUE, for example --set phases.1.lr=1e-5")
        changes[key.strip()] = value.strip()
    if file is None and not changes:
        return None
    return (Recipe.load(file) if file else Recipe()).with_settings(changes)


def _signature(*own: inspect.Parameter, only: Sequence[str] = ()) -> inspect.Signature:
    """Parameters of a command that takes a recipe: its own, and an option for each plain setting, or for some."""
    shared = [
        _parameter("data", Annotated[Path, typer.Argument(help="Folder or table of labelled images.")]),
        _parameter("recipe", Annotated[Path | None, typer.Option(help="YAML recipe to start from.")], None),
        _parameter(
            "settings",
            Annotated[list[str], typer.Option("--set", help="Any setting, such as phases.1.lr=1e-5; repeatable.")],
            [],
        ),
    ]
    return inspect.Signature([*shared, *own, *(item for item in _recipe_options() if not only or item.name in only)])


def _recipe_options() -> list[inspect.Parameter]:
    names = {
        name: name
        for name, field in Recipe.model_fields.items()
        if name != "phases" and not isinstance(field.default, Section)
    }
    options = []
    for name, key in (names | SHORTCUTS).items():
        field = _field(key)
        flag = f"--{name.replace('_', '-')}"
        help_text = f"{field.description} Default: {field.default}."
        if field.annotation is bool:
            options.append(_parameter(name, Annotated[bool, typer.Option(flag, help=help_text)], False))
        else:
            option = typer.Option(flag, help=help_text, metavar="VALUE", show_default=False)
            options.append(_parameter(name, Annotated[str | None, option], None))
    return options


def _field(key: str) -> Any:
    section: type[Section] = Recipe
    *parents, last = key.split(".")
    for parent in parents:
        section = type(section.model_fields[parent].default)
    return section.model_fields[last]


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _add(name: str, command: Callable[..., None], signature: inspect.Signature) -> None:
    """Register a command under a signature that is made of the recipe's fields."""
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
    app.command(name)(command)


_RESUME = typer.Option("--resume", help="Go on with the newest unfinished run.")
_SEEN_THROUGH = ("backbone", "weights", "image_size", "task", "device", "engine", "seed", "strict")

_RUNS = _parameter("runs", Runs, Path("runs"))
_OUT = typer.Option("--out", help="The recipe to write; it must not exist.")

_add("train", train, _signature(_parameter("resume", Annotated[bool, _RESUME], False), _RUNS))
_add("inspect", inspect_, _signature(_RUNS, only=_SEEN_THROUGH))
_add("plan", plan, _signature(_parameter("out", Annotated[Path, _OUT], Path("recipe.yaml"))))


@app.command()
def evaluate(
    trained: Trained,
    data: Annotated[Path | None, typer.Argument(help="Folder or table of labelled images.", show_default=False)] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Instead of DATA: train again on folds of the run's own data.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(help="With --folds: how often the folds are dealt.")] = 1,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --folds: train the whole recipe, not a head on stored features.")
    ] = False,
    options: Annotated[
        bool,
        typer.Option("--options", help="Instead of DATA: what mirror images and larger pictures bring."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write all figures to this JSON file as well.", show_default=False)
    ] = None,
) -> None:
    """Measure a trained classifier on labelled images, or its recipe by cross-validation, with 95 % intervals."""
    import json
    from dataclasses import asdict

    from thaw import atomic, pipeline
    from thaw.data.dataset import Dataset
    from thaw.progress import Terminal
    from thaw.report.results import show_evaluation

    if (data is not None) + (folds is not None) + options != 1:
        raise RecipeError("evaluate: give either DATA to measure on, --folds K to train again, or --options")
    if options:
        found: Any = [asdict(option) for option in pipeline.try_options(trained)]
    elif folds is not None:
        found = asdict(pipeline.cross_validate(trained, folds, seeds, whole))
    else:
        assert data is not None
        classifier, terminal = pipeline.load(trained), Terminal()
        result = pipeline.evaluate(classifier, Dataset.open(data, classifier.task, classifier.classes), terminal)
        show_evaluation(result, terminal)
        found = result.to_json()
    if out:
        atomic.write_text(out, json.dumps(found, indent=2) + "\n")


@app.command()
def decide(
    trained: Annotated[Path, typer.Argument(help="A finished run, such as runs/train-1.")],
    out: Annotated[Path, typer.Option(help="The bundle to write; it must not exist.")],
    recall: Annotated[str | None, typer.Option(help=_field("decide.recall").description, show_default=False)] = None,
    precision: Annotated[
        str | None, typer.Option(help=_field("decide.precision").description, show_default=False)
    ] = None,
    costs: Annotated[str | None, typer.Option(help=_field("decide.costs").description, show_default=False)] = None,
) -> None:
    """Give a trained classifier another threshold, chosen on validation, and show what it does on test."""
    from thaw.pipeline import decide as choose

    wishes = {"recall": recall, "precision": precision, "costs": costs}
    if not any(wishes.values()):
        raise RecipeError("decide: say what is wanted, such as --recall crack=0.99")
    choose(trained, Recipe.from_values({"decide": wishes}, where="decide").decide, out)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A finished run, such as runs/train-1.")],
    second: Annotated[Path, typer.Argument(help="Another one over the same images.")],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
) -> None:
    """Say whether one run is better than another, by the images that both were tested on."""
    from thaw.pipeline import compare as beside

    beside(first, second, split)


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
    device: Annotated[str, typer.Option(help=str(_field("device").description))] = "auto",
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
    from thaw.classifier.bundle import digest_of
    from thaw.pipeline import load
    from thaw.progress import Terminal
    from thaw.report.predictions import Asked, Shard, write_predictions
    from thaw.run_folder import bundle_of, cache_folder

    settings = Recipe().with_settings({"engine": engine, "device": device})
    asked = Asked(tuple(photos), out, Shard.parse(shard), settings.engine, settings.device, mirrored, size)
    watch = Terminal(Console(stderr=True, highlight=False, soft_wrap=True))
    classifier = load(trained)
    try:
        done, failed = write_predictions(classifier, digest_of(bundle_of(trained)), asked, cache_folder(), watch)
    finally:
        watch.close()
    print(f"{done} images classified, {failed} could not be read", file=sys.stderr)


@app.command()
def explain(
    trained: Trained,
    photos: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for them.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; nothing in it is overwritten.")],
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Show what speaks for this class.", show_default=False)
    ] = None,
) -> None:
    """Show where in each image the classifier sees what speaks for its class: one picture per file.

    Without --class that is the most probable class of each image.
    """
    from thaw.pipeline import load
    from thaw.report.overlays import write_overlays
    from thaw.report.predictions import files_at

    classifier = load(trained)
    written = failed = 0
    for row in write_overlays(classifier, list(files_at(photos)), out, class_name):
        written += row.status == "ok"
        failed += row.status == "error"
        said = f"{row.picture}: {row.label}, {row.probability:.1%}" if row.picture else f"{row.path}: {row.reason}"
        print(said, file=sys.stdout if row.picture else sys.stderr)
    print(f"{written} pictures written to {out}, {failed} files without one", file=sys.stderr)


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
    from thaw.errors import ExportError
    from thaw.export.export import export_bundle, export_int8
    from thaw.run_folder import bundle_of

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
def push(
    trained: Trained,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub; made if needed.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
) -> None:
    """Upload a bundle to a model hub (huggingface.co, or HF_ENDPOINT); hub:OWNER/NAME then names it everywhere."""
    from thaw.pipeline import push as upload

    print(upload(trained, name, private=not public))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="The folder of a finished run, such as runs/train-1.")]) -> None:
    """Write the page of a finished run anew: figures, pictures, reasons, in one HTML file that needs no network."""
    from thaw.pipeline import report as write
    from thaw.progress import Terminal

    print(write(run, Terminal(Console(stderr=True, highlight=False, soft_wrap=True))))


networks = typer.Typer(help="The pre-trained networks: listed, and fetched for a machine without internet.")
app.add_typer(networks, name="models", invoke_without_command=True)


@networks.callback()
def _networks(context: typer.Context) -> None:
    """List the pre-trained networks, or fetch one for a machine without internet."""
    if context.invoked_subcommand is None:
        models_list()


@networks.command("list")
def models_list(
    words: Annotated[list[str] | None, typer.Argument(metavar="[FILTER]", help="Show names with these words.")] = None,
) -> None:
    """List the pre-trained networks: size, cost, published accuracy, and whether they are on this machine."""
    from thaw.backbones.catalogue import find
    from thaw.backbones.weights import is_cached

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "family", "parameters", "GMACs", "input", "top-1", "source", "offline?"):
        table.add_column(title, justify="right" if title in {"parameters", "GMACs", "input", "top-1"} else "left")
    for entry in find(" ".join(words or [])):
        table.add_row(
            entry.name,
            entry.family,
            f"{entry.parameters_m:.1f} M",
            f"{entry.gmacs:.2f}",
            f"{entry.input_size}",
            "-" if entry.top1 is None else f"{entry.top1:.1f} %",
            entry.source,
            "yes" if is_cached(entry.name) else "no",
        )
    console = Console(highlight=False)
    console.width = max(console.width, WIDE)
    console.print(table)


@networks.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A network that `thaw models` lists.")],
    to: Annotated[Path, typer.Option(help="The .safetensors file to write; it must not exist.")],
) -> None:
    """Fetch published weights into one file that carries its preprocessing, to be taken to another machine."""
    from thaw.backbones.timm_backbone import build
    from thaw.backbones.weights import refuse_to_overwrite, write_file

    refuse_to_overwrite(to)
    backbone = build(name)
    digest = write_file(backbone, to)
    print(f"{to}: {backbone.facts.origin}, licence {backbone.facts.license}, sha256 {digest}")
    print(f"on the other machine: thaw train IMAGES --backbone {name} --weights {to.name}")


caches = typer.Typer(help="Decoded pixels and stored features that are kept between runs.", no_args_is_help=True)
app.add_typer(caches, name="cache")


@caches.command("list")
def cache_list() -> None:
    """Show what is kept, where, how large it is and when it was last used; the oldest first."""
    from datetime import datetime

    from thaw.cache import kept
    from thaw.run_folder import cache_folder

    stores = kept(cache_folder())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("last used", "size", "kind", "what"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for item in stores:
        used = datetime.fromtimestamp(item.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(used, f"{item.size / 1e6:,.1f} MB", item.kind, item.about)
    console = Console(highlight=False)
    console.width = max(console.width, WIDE)
    if stores:
        console.print(table)
    print(f"{cache_folder()}: {len(stores)} stores, {sum(item.size for item in stores) / 1e9:.2f} GB")


@caches.command("clear")
def cache_clear(
    kind: Annotated[str, typer.Argument(help="pixels, features, or all of it.")] = "all",
) -> None:
    """Remove what is kept; later runs make it anew."""
    from thaw.cache import KINDS, clear
    from thaw.run_folder import cache_folder

    kinds = tuple(name for name in KINDS if kind in (name, "all"))
    if not kinds:
        raise RecipeError(f"cache clear {kind}: there is no such kind; known are {', '.join(KINDS)} and all")
    gone = clear(cache_folder(), kinds)
    print(f"removed {len(gone)} stores, {sum(item.size for item in gone) / 1e9:.2f} GB, from {cache_folder()}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the images and the run go.")] = Path("thaw-demo"),
    random_start: Annotated[
        bool, typer.Option("--random-start", help="Train from random weights too, to see what pre-training is worth.")
    ] = False,
) -> None:
    """Make a small set of surface-defect images, train on it, show the result; needs no network."""
    from thaw.demo import run_demo

    run_demo(folder, random_start)
