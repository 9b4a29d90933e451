"""Feature extraction: views of every image through the frozen part into the feature cache, in one pass.

Three things run at once: the next batch of views is rendered, the current one passes the frozen part, the last one is
written. All of them release Python's global lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np

from thaw.backbones.facts import Features
from thaw.backbones.stages import AtCut
from thaw.cache import ATTEMPTS
from thaw.data import augment
from thaw.data.augment import Augmentation
from thaw.errors import WriteError
from thaw.features.cache import CachedFeatures, FeatureCache, FeatureKey, FeatureWriter, Part, bytes_of_view
from thaw.features.engines import FrozenPart
from thaw.features.passes import BATCH, current_pass
from thaw.features.view_request import ViewDescription, ViewRequest
from thaw.processes import ALONE, Process
from thaw.progress import OnProgress


def extract(
    request: ViewRequest,
    frozen: FrozenPart,
    positions: Sequence[int],
    cache: FeatureCache,
    on_progress: OnProgress,
    process: Process = ALONE,
) -> dict[int, CachedFeatures]:
    """Features of the requested views at each position: from the cache where they are there, else in one pass.

    Where a value is too large for the cache's dtype, all features of the pass are stored in float32. Several processes
    extract a part of the rows each, in the batches that one process would make, and merge them view by view.

    Args:
        request: The images and their views.
        frozen: The backbone and the engine that runs it.
        positions: Positions of the cuts.
        cache: Where features are read from and written to.
        on_progress: Called with the number of views done, and of all views.
        process: This process, where several of them extract the same features.
    """
    job, wanted = _Job(request, frozen, cache, process), sorted(set(positions))
    exact = replace(job, cache=replace(cache, dtype="float32"))
    # Where a value was too large before, the frozen part does not run up to it again.
    if not _is_cached(job, wanted) and _is_cached(exact, wanted):
        return _extract(exact, wanted, on_progress)
    try:
        return _extract(job, wanted, on_progress)
    except OverflowError:
        return _extract(exact, wanted, on_progress)


@dataclass(frozen=True)
class _Job:
    """What is extracted by what, where it is kept, and which process this is.

    entries: all that the extraction needs, which do not make room for each other.
    """

    request: ViewRequest
    frozen: FrozenPart
    cache: FeatureCache
    process: Process
    entries: tuple[FeatureKey, ...] = ()

    def about(self, position: int) -> dict[str, str]:
        """How the list of cache entries describes features."""
        backbone = self.frozen.backbone
        return {"backbone": backbone.facts.architecture, "cut": (*backbone.block_names, "head")[position]}


def _is_cached(job: _Job, positions: Sequence[int]) -> bool:
    """Whether every process finds all features in the cache."""
    keys = chain.from_iterable(_keys(job.request.description, job.frozen, at, job.cache) for at in positions)
    return not job.process.any(not all(map(job.cache.has, keys)))


def _extract(job: _Job, positions: Sequence[int], on_progress: OnProgress) -> dict[int, CachedFeatures]:
    request, cache, process = job.request, job.cache, job.process
    total, rows = len(request.rows) * request.views, len(request.rows)
    for _ in range(ATTEMPTS + 1):
        keys = {position: _keys(request.description, job.frozen, position, cache) for position in positions}
        with_stages = job.frozen.backbone.features == "all"
        opened = {position: cache.open(views, with_stages) for position, views in keys.items()}
        found = {position: features for position, features in opened.items() if features is not None}
        if not process.any(len(found) < len(keys)):
            on_progress(total, total)
            return found
        absent, job = _absent(keys, request.views, cache, process), replace(job, entries=(*chain(*keys.values()),))
        left = sum(map(bool, absent))
        for index, missing in enumerate(absent):
            if missing:
                progress = partial(_report, on_progress, total - left * rows, total)
                _write(replace(job, request=request.view(index)), missing, left, progress)
                left -= 1
        process.barrier()
    raise WriteError(cache.folder, "cached features are removed before they can be used; run again")


def _absent(
    keys: Mapping[int, list[FeatureKey]], views: int, cache: FeatureCache, process: Process
) -> list[dict[int, FeatureKey]]:
    """The keys of each view that the main process does not find in the cache, by position."""

    def find() -> str:
        return json.dumps(
            [[position for position in keys if not cache.has(keys[position][view])] for view in range(views)]
        )

    return [
        {position: keys[position][view] for position in positions}
        for view, positions in enumerate(json.loads(process.from_main(find)))
    ]


def _report(on_progress: OnProgress, before: int, total: int, done: int) -> None:
    """Report what is done of one view."""
    on_progress(before + done, total)


def _write(job: _Job, keys: Mapping[int, FeatureKey], left: int, on_progress: Callable[[int], None]) -> None:
    """Extract one view at the positions of some keys into the cache, together with other processes if there are any.

    left: how many views have to be written, this one included.
    """
    rows, cache, process = job.request.rows, job.cache, job.process
    if process.count == 1:
        _write_rows(job, keys, left * len(rows), on_progress)
        return
    # Whole batches, whose bits do not depend on the number of processes.
    starts = np.arange(0, len(rows), BATCH)
    parts, own, overflows = min(process.count, len(starts)), process.part(starts), False
    if len(own):
        part = Part(process.rank, parts)
        own_rows = rows[own[0] : own[-1] + BATCH]
        missing = {position: key for position, key in keys.items() if not cache.has(key, part)}

        def report(done: int) -> None:
            on_progress(done * len(rows) // len(own_rows))

        try:
            if missing:
                own_job = replace(job, request=replace(job.request, rows=own_rows))
                _write_rows(own_job, missing, left * len(rows), report, part)
        except OverflowError:
            overflows = True
    if process.any(overflows):
        raise OverflowError("a value is too large for the dtype of the cache")
    # Each in turn, while the others go on with the next view.
    if process.rank == left % process.count:
        for position, key in keys.items():
            cache.merge(key, parts, job.about(position))


def _write_rows(
    job: _Job,
    keys: Mapping[int, FeatureKey],
    left: int,
    on_progress: Callable[[int], None],
    part: Part | None = None,
) -> None:
    """Extract one view of all images or of a part of them; each batch is written while the next one runs.

    The first batch tells how much room the `left` views of images need, those of other processes included.
    """
    cache = job.cache
    with ExitStack() as stack:
        outputs = stack.enter_context(closing(current_pass()(job.request, job.frozen, list(keys), cache.dtype)))
        first = next(outputs)
        needed = left * sum(bytes_of_view(at, cache.dtype) for at in first)
        if part is None or part.index == 0:
            cache.make_room(needed, job.entries)
        writers = []
        for position, key in keys.items():
            writers.append(stack.enter_context(cache.writing(key, job.about(position), needed, part)))
        behind = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        done, written = 0, Future[None]()
        written.set_result(None)
        for batch in chain((first,), outputs):
            written.result()
            on_progress(done)
            written = behind.submit(_append, writers, batch)
            done += len(batch[0].values)
        written.result()
        on_progress(done)


def _append(writers: Sequence[FeatureWriter], outputs: Sequence[AtCut]) -> None:
    """Write what lies at each position, for one batch."""
    for writer, features in zip(writers, outputs, strict=True):
        writer.append(features)


def find_features(
    views: ViewDescription, frozen: FrozenPart, position: int, cache: FeatureCache
) -> CachedFeatures | None:
    """Features of views from the cache, without their images; `None` where they are not all there.

    Where the engine of the frozen part has not extracted them, those of any other engine, version or dtype serve.
    """
    keys = _keys(views, frozen, position, cache)
    with_stages = frozen.backbone.features == "all"
    return cache.open(keys, with_stages) or cache.open_similar(keys, with_stages)


def _keys(views: ViewDescription, frozen: FrozenPart, position: int, cache: FeatureCache) -> list[FeatureKey]:
    """The key of each view at a position.

    Where the head takes the last stage only, features that were extracted with the statistics of all stages may serve.
    """
    facts, backbone = frozen.backbone.facts, frozen.backbone
    serving: list[Features] = [backbone.features]
    if backbone.features == "last" and backbone.has_stages and frozen.all_serve_last:
        serving.append("all")
    base = FeatureKey(
        pixels=views.pixels,
        rows=hashlib.sha256(np.ascontiguousarray(views.rows, dtype=np.int64).tobytes()).hexdigest(),
        augmentation="",
        seed=0,
        backbone="",
        position=position,
        engine=frozen.label,
        dtype=cache.dtype,
        view=0,
    )
    bases = [
        replace(base, backbone=f"{frozen.digest(position, features)} {facts.mean} {facts.std}") for features in serving
    ]
    keys = []
    for number in views.numbers:
        candidates = [_key_of_view(each, views, number) for each in bases]
        keys.append(next((key for key in candidates if cache.has(key)), candidates[0]))
    return keys


def _key_of_view(base: FeatureKey, views: ViewDescription, number: int) -> FeatureKey:
    """The key of one view; the plain one is the same with any augmentation and seed."""
    is_plain = number == 0 or not views.augmentation.changes
    augmentation = Augmentation() if is_plain else views.augmentation
    described = repr((augment.VERSION, augmentation, views.spec))
    return replace(base, augmentation=described, seed=0 if is_plain else views.seed, view=0 if is_plain else number)
