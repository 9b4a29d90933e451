"""What stays in the memory of an accelerator during a run, and what is copied there batch by batch."""

from __future__ import annotations

from thaw.device import fits
from thaw.formats import size
from thaw.planning.cache_plan import CachePlan, views_of
from thaw.planning.measurements import Measurements
from thaw.recipe import Recipe


def device_memory(recipe: Recipe, measured: Measurements, caching: CachePlan) -> list[str]:
    """One phrase for the free memory, the images and the training features of each phase; empty on the CPU.

    The images come first and stay for the whole run, features for their phase. What a network and its gradients take is
    in the part that neither may take (`thaw.device.SHARE`).
    """
    free = measured.device_free_bytes
    if not free:
        return []
    found = [f"{size(free)} of its memory are free", _phrase("decoded images", measured.pixel_bytes, free)]
    if fits(measured.pixel_bytes, free):
        free -= measured.pixel_bytes
    for phase, sizes in zip(caching.phases, measured.sizes, strict=True):
        if phase.inputs == "cached":
            views = views_of(recipe, phase, caching.views)
            needed = measured.images.train * views * sizes.of(caching.dtype)
            # Those of eight bits are decoded on the CPU.
            found.append(_phrase(f"features of {phase.name}", needed, 0 if caching.dtype == "uint8" else free))
    return found


def _phrase(what: str, needed: int, free: int) -> str:
    outcome = "stay there" if fits(needed, free) else "are copied batch by batch"
    return f"{what} ({size(needed)}) {outcome}"
