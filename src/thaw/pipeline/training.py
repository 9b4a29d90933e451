"""From labelled images to a classifier: inspect the data, plan, fine-tune."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from thaw import atomic
from thaw.backbones import build
from thaw.backbones.default import check_named, name_backbone
from thaw.bundle import read_bundle
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier
from thaw.cores import worker_count
from thaw.data.ahead import decode_ahead
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.groups import group_images
from thaw.data.pixel_store import PixelStore
from thaw.device import keep_freed_memory, threads_restored
from thaw.distributed.agreement import check_agreement
from thaw.distributed.joining import joined
from thaw.distributed.machine import more_devices, use_own_part
from thaw.errors import RecipeError
from thaw.features.cluster_pass import extracting_on
from thaw.formats import command
from thaw.inspection import page
from thaw.inspection.inspect import Inspection, inspect_images
from thaw.planning.plan import Plan
from thaw.processes import Process
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Recipe
from thaw.remote import is_remote
from thaw.run import run
from thaw.run_folder import InspectionFolder, RunFolder
from thaw.terminal.console import ConsoleReporter
from thaw.terminal.inspection import show_inspection
from thaw.trial import plan_trial
from thaw.updating.update import update as update_run
from thaw.writing import check_has_folder, check_new, check_writable, path_errors_explained

Data = str | Path | Dataset


@path_errors_explained()
def finetune(
    data: Data,
    recipe: Recipe | None = None,
    runs: str | Path = "runs",
    resume: bool = False,
    reporter: Reporter | None = None,
    cluster: str | None = None,
) -> Classifier:
    """Fine-tune a pre-trained network: plan, train phase by phase, keep the best phase, calibrate, evaluate.

    Args:
        data: Labelled images: a folder or table, here or at an address such as s3://bucket/images, or a `Dataset`.
        recipe: The settings; what it leaves at "auto" is planned from measurements.
        runs: The folder in which the run makes its own, `train-N`, with the bundle in `train-N/model`.
        resume: Resume the newest unfinished run under `runs`; without a `recipe`, with the one it began with.
        reporter: Shows progress; the console by default.
        cluster: Decode images and extract features on a Ray cluster: HOST:PORT of its head, or "local".

    Returns:
        The classifier with its best weights, calibrated, in eval mode.

    Raises:
        DataError: If the images or labels cannot be used.
        RecipeError: If a setting is wrong.
        ResumeError: If the data or the recipe has changed since the run began.
        ClusterError: If the cluster cannot be used, or work fails there.
        WriteError: If `runs` cannot be written, or the disk is full; what was trained can be resumed.

    Example:
        >>> recipe = thaw.Recipe.load("recipe.yaml")
        >>> classifier = thaw.finetune("images", recipe, runs="runs", reporter=thaw.NullReporter())
        >>> classifier.classes
        ('ok', 'scratch', 'stain')
    """
    keep_freed_memory()
    with joined() as process:
        check_writable(Path(runs))
        silent = None if process.is_main else NullReporter()
        with closing(silent or reporter or ConsoleReporter()) as shown:
            requested = recipe or (_begun(Path(runs)) if resume else Recipe())
            dataset = _opened_in_turn(data, requested, shown, process)
            if process.count > 1:
                if cluster:
                    raise RecipeError("cluster: extracts features on other machines, for one process; choose either")
                folders = {"the folder of runs": Path(runs), "the cache": cache_folder()}
                check_agreement(process, dataset, requested, folders)
                dataset = _decoded_ahead(dataset, requested, process)
                use_own_part(process, requested.device)
            elif hint := more_devices(requested.device):
                shown.say(hint)
            with extracting_on(cluster, shown):
                return run(dataset, recipe, Path(runs), shown, resume, process).classifier


@path_errors_explained()
def plan(
    data: Data, recipe: Recipe | None = None, out: str | Path = "recipe.yaml", reporter: Reporter | None = None
) -> Plan:
    """Plan what `finetune` would do: every setting with its reason, and the time it will take; train nothing.

    Args:
        data: Labelled images: a folder or table, here or at an address such as s3://bucket/images, or a `Dataset`.
        recipe: The settings to start from.
        out: The recipe file to write, with every setting resolved; it must not exist.
        reporter: Shows the plan; the console by default.

    Returns:
        The resolved recipe, the reason for each choice, and the forecast.

    Raises:
        RecipeError: If a setting is wrong.
        DataError: If the images or labels cannot be used.
        WriteError: If `out` already exists or cannot be written.

    Example:
        >>> recipe, quiet = thaw.Recipe.load("recipe.yaml"), thaw.NullReporter()
        >>> found = thaw.plan("images", recipe, out="planned.yaml", reporter=quiet)
        >>> found.recipe.task, found.forecast.seconds > 0
        ('multiclass', True)
    """
    keep_freed_memory()
    requested, file = recipe or Recipe(), Path(out)
    check_has_folder(file)
    check_new(file)
    with closing(reporter or ConsoleReporter()) as shown:
        dataset = opened(data, requested, shown)
        with threads_restored():
            planned = plan_trial(dataset, requested, None, shown).plan
        atomic.write_new(file, planned.recipe.to_yaml().encode("utf-8"))
        trains = command("thaw", "train", "DATA", "--recipe", file)
        shown.say(f"recipe {file}: edit it, and run it with `{trains}`")
        return planned


@path_errors_explained()
def inspect(
    data: Data, recipe: Recipe | None = None, runs: str | Path = "runs", reporter: Reporter | None = None
) -> Inspection:
    """Inspect labelled images before training: duplicates, leaks, label errors, outliers, shift, learning curve.

    Args:
        data: Labelled images: a folder or table, here or at an address such as s3://bucket/images, or a `Dataset`.
        recipe: Of its settings, `task`, `folders`, `decode`, `split.group_by`, `backbone`, `weights`, `preprocessing`,
            `device`, `engine`, `cache_gb` and `seed` are used.
        runs: The folder in which the inspection makes its own, `inspect-N`, with a page and a JSON file.
        reporter: Shows the findings; the console by default.

    Returns:
        Everything that was found.

    Raises:
        DataError: If the images or labels cannot be used.
        WriteError: If `runs` cannot be written, or the disk is full.

    Example:
        >>> found = thaw.inspect("images", thaw.Recipe.load("recipe.yaml"), runs="runs", reporter=thaw.NullReporter())
        >>> found.counts()["scratch"]
        {'all': 12}
    """
    keep_freed_memory()
    requested = recipe or Recipe()
    check_named(requested, "inspect images with")
    check_writable(Path(runs))
    with closing(reporter or ConsoleReporter()) as shown:
        dataset = opened(data, requested, shown)
        requested, _ = name_backbone(requested, shown.say)
        backbone, cache = build(requested), cache_folder()
        # Distances and outliers are about what is seen: the last stage, whatever a head would take.
        backbone.use_features("last")
        decoding = Decoding(backbone.facts.pixels, requested.decode, worker_count())
        pixels = PixelStore.open_or_build(dataset.manifest, decoding, cache, shown.bar)
        described = pixels.describe(dataset.manifest)
        grouped = group_images(described, requested.split.group_by, pixels.captures())
        found = inspect_images(requested, grouped, pixels, backbone, cache, shown.bar)
        folder = InspectionFolder.create(Path(runs))
        folder.write(page.write_page(found, pixels), page.to_json(found))
        show_inspection(found, folder, shown)
        return found


@path_errors_explained()
def update(run: str | Path, data: Data, runs: str | Path | None = None, reporter: Reporter | None = None) -> Classifier:
    """Let a finished run learn new images, or new classes, without its old images: from their cached features.

    The update is kept only if no old class is recognised less well beyond noise.

    Args:
        run: A finished run, or an update; its folder is only read.
        data: The new labelled images: a folder or table, here or at an address such as s3://bucket/images, or a
            `Dataset` with the classes of the run first.
        runs: The folder in which the new run makes its own, `train-N`; by default that of `run`.
        reporter: Shows progress; the console by default.

    Returns:
        The updated classifier: the classes of the run, then the new ones.

    Raises:
        DataError: If there is no such run, the cache has lost its features, or the new images cannot be used.
        UpdateError: If the update is not kept.
        WriteError: If `runs` cannot be written, or the disk is full.

    Example:
        >>> thaw.update("runs/train-1", "new-images", reporter=thaw.NullReporter()).classes  # doctest: +SKIP
        ('ok', 'scratch', 'stain', 'crack')
    """
    keep_freed_memory()
    source = RunFolder.at(Path(run))
    # `.` and `..` do not name the folder that they are in.
    named = source.path.resolve() if source.path.name in ("", "..") else source.path
    parent = named.parent if runs is None else Path(runs)
    check_writable(parent)
    with closing(reporter or ConsoleReporter()) as shown:
        return read_bundle(update_run(source, data, parent, shown).model)


def _opened_in_turn(data: Data, recipe: Recipe, shown: Reporter, process: Process) -> Dataset:
    """The data set; what is on remote storage, the main process mirrors before the others read it."""
    if isinstance(data, Dataset) or not is_remote(data):
        return opened(data, recipe, shown)
    if not process.is_main:
        process.barrier()
    dataset = opened(data, recipe, shown)
    if process.is_main:
        process.barrier()
    return dataset


def _decoded_ahead(dataset: Dataset, recipe: Recipe, process: Process) -> Dataset:
    """The data set, whose images the main process decodes with all cores, before it takes its own ones only."""
    if not process.is_main or dataset.ahead:
        return dataset
    return replace(dataset, ahead=decode_ahead(dataset.manifest, recipe, cache_folder()))


def _begun(runs: Path) -> Recipe:
    """The recipe that the run to resume began with."""
    return RunFolder.latest_unfinished(runs).read_requested() or Recipe()


def opened(data: Data, recipe: Recipe, shown: Reporter) -> Dataset:
    """A data set for the task of the recipe, as it is or opened; says what is remarkable about it."""
    if isinstance(data, Dataset):
        dataset = data.as_task(recipe.task)
    else:
        dataset = Dataset.open(data, recipe.task, folders=recipe.folders, bar=shown.bar)
    for note in dataset.notes:
        shown.say(note)
    return dataset
