"""What is found in names: groups where names say so, and none where they only enumerate."""

import random
import string
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thaw.data.name_groups import Candidate, find_in_names
from thaw.data.walk import Omitted, images_below

CLASSES = ("crack", "ok")
Name = Callable[[int, int], str]


def found_in(paths: Sequence[str], labels: Sequence[str] = (), splits: Sequence[str] = ()) -> Candidate | None:
    """The groups of images whose first folder is the class, if no other labels are given."""
    own = [path.partition("/")[0] for path in paths]
    return find_in_names(paths, labels or own, splits or [""] * len(paths))


def members(paths: Sequence[str], found: Candidate | None) -> set[frozenset[str]]:
    """The paths of each group."""
    groups = defaultdict(set)
    for path, name in zip(paths, found.names if found else [None] * len(paths), strict=True):
        if name is not None:
            groups[name].add(path)
    return {frozenset(group) for group in groups.values()}


def parts_of(name: Name, parts: int = 12, images: int = 5) -> dict[int, list[str]]:
    """The paths of each part, half of the parts in each class."""
    return {
        part: [f"{CLASSES[part % 2]}/{name(part, image)}.png" for image in range(1, images + part % 3)]
        for part in range(1, parts + 1)
    }


def serial(part: int) -> int:
    """A serial number: distinct and with large gaps."""
    return 10_000 + part * part * 37


NAMES: dict[str, Name] = {
    "part12_003": lambda part, image: f"part{part}_{image:03}",
    "12-3": lambda part, image: f"{part}-{image}",
    "sampleA-frame0001": lambda part, image: f"sample{chr(64 + part)}-frame{image:04}",
    "part_12_frame_3": lambda part, image: f"part_{part}_frame_{image}",
    "part12frame003": lambda part, image: f"part{part}frame{image:03}",
    "frame003_part12": lambda part, image: f"frame{image:03}_part{part}",
    "crop 3 of A7F3": lambda part, image: f"{serial(part):X}h crop {image}",
    "exp1_num_108889": lambda part, image: f"exp{image}_num_{serial(part)}",
    "20210304_0001": lambda part, image: f"202103{part:02}_{image:04}",
    "2021-03-04 pump 7": lambda part, image: f"2021-03-{part:02} pump {image}",
    "part12_HASH": lambda part, image: f"part{part}_{uuid.UUID(int=7**40 * part + 11**30 * image).hex}",
    "folder": lambda part, image: f"block {part}/{image}",
    "folder, view folder": lambda part, image: f"block {part}/cam{image}/image",
    "view folder, file": lambda part, image: f"cam{image}/block{part}",
    "IMG_1234_jpg.rf.HASH": lambda part, image: (
        f"IMG_{part}_jpg.rf.{random.Random(part * 99 + image).getrandbits(99):x}"
    ),
    "12_flip": lambda part, image: (
        f"surface_{part}{('', '_flip', '_rot90', '_crop', '_noise2', '_x', '_y')[image - 1]}"
    ),
}


@pytest.mark.parametrize("kind", NAMES)
def test_images_whose_names_say_so_are_one_group(kind: str) -> None:
    parts = parts_of(NAMES[kind])
    paths = [path for group in parts.values() for path in group]
    assert members(paths, found_in(paths)) == {frozenset(group) for group in parts.values()}


@settings(max_examples=60)
@given(
    kind=st.sampled_from([kind for kind in NAMES if "A7F3" not in kind]),
    parts=st.integers(10, 26),
    images=st.integers(3, 5),
    seed=st.integers(0, 99),
)
def test_no_part_is_divided_whatever_the_number_of_parts_and_the_order(
    kind: str, parts: int, images: int, seed: int
) -> None:
    by_part = parts_of(NAMES[kind], parts, images)
    paths = [path for group in by_part.values() for path in group]
    random.Random(seed).shuffle(paths)
    groups = members(paths, found_in(paths))
    assert all(any(set(group) <= found for found in groups) for group in by_part.values())
    assert max(map(len, groups)) <= len(paths) / 2


@pytest.mark.parametrize("views", [("left", "right"), ("cam1", "cam2", "cam3"), ("rgb", "thermal")])
def test_views_of_one_part_are_a_group_wherever_the_view_is_named(views: tuple[str, ...]) -> None:
    for name in ("{view}_{part}", "{part}_{view}", "{view}/{part}"):
        parts = [
            [f"{CLASSES[part % 2]}/{name.format(view=view, part=part)}.png" for view in views] for part in range(20)
        ]
        paths = [path for group in parts for path in group]
        assert members(paths, found_in(paths)) == {frozenset(group) for group in parts}


def test_a_part_that_several_cameras_saw_is_one_group() -> None:
    paths = [
        f"{CLASSES[part % 2]}/cam{cam}_part{part}_{image}.png"
        for part in range(12)
        for cam in (1, 2)
        for image in range(3)
    ]
    found = found_in(paths)
    assert found and Counter(found.names) == {f"part{part}": 6 for part in range(12)}


def random_name(seed: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits + "-_", k=11))


ENUMERATED: dict[str, Name] = {
    "IMG_1234": lambda label, number: f"IMG_{1000 + 300 * label + number}",
    "DSC, IMG": lambda label, number: f"{('DSC', 'IMG_')[number % 2]}{1000 + 300 * label + number}",
    "class and counter": lambda label, number: f"{CLASSES[label]}{number}",
    "counter": lambda label, number: f"{number:04}",
    "one counter for all": lambda label, number: f"cell{300 * label + number:04}",
    "sequence with a class digit": lambda label, number: f"{label + 1}{number:03}",
    "number of a photo and a secret": lambda label, number: f"{10**9 + 7919 * number}_{hash_of(label, number)[:10]}",
    "hash": lambda label, number: hash_of(label, number),
    "UUID": lambda label, number: str(uuid.UUID(hash_of(label, number))),
    "base64": lambda label, number: random_name(1000 * label + number),
    "buckets by hash": lambda label, number: f"{hash_of(label, number)[:2]}/{hash_of(label, number)}",
    "size": lambda label, number: f"{number}_{('640x480', '800x600')[number % 2]}",
    "score": lambda label, number: f"{number}_0.{hash(number) * 37 % 100:02}",
    "kinds in words": lambda label, number: (
        f"{('large', 'new', 'red')[number % 3]}_{('bolt', 'nut')[number % 2]}_{number}"
    ),
    "two batches": lambda label, number: f"batch{1 + number % 2}_{number:03}",
    "every 30 s": lambda label, number: f"{datetime(2021, 3, 4) + timedelta(seconds=30 * number):%Y%m%d_%H%M%S}",
}


def hash_of(label: int, number: int) -> str:
    return f"{random.Random(1000 * label + number).getrandbits(128):032x}"


@pytest.mark.parametrize("kind", ENUMERATED)
def test_names_that_only_enumerate_are_no_groups(kind: str) -> None:
    paths = [f"{CLASSES[label]}/{ENUMERATED[kind](label, number)}.png" for label in (0, 1) for number in range(200)]
    assert found_in(paths) is None


def test_kinds_in_both_classes_are_no_groups() -> None:
    breeds = ("Abyssinian", "Bengal", "Birman", "Bombay", "beagle", "boxer", "pug", "samoyed")
    paths = [f"{breed}_{number}.jpg" for breed in breeds for number in range(50)]
    assert found_in(paths, [label for label in ("cat", "dog") for _ in range(200)]) is None


@settings(max_examples=60)
@given(names=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1), max_size=40))
def test_any_names_are_read(names: list[str]) -> None:
    paths = [f"{CLASSES[number % 2]}/{name}" for number, name in enumerate(names)]
    found = found_in(paths)
    assert found is None or len(found.names) == len(paths)


@pytest.mark.parametrize(
    "form",
    [
        "IMG_%Y%m%d_%H%M%S",
        "%Y-%m-%d %H.%M.%S",
        "Image__%Y-%m-%d__%H-%M-%S",
        "%d.%m.%Y_%H-%M-%S_HDR",
        "PXL_%Y%m%d_%H%M%S123",
    ],
)
def test_times_in_names_are_divided_into_sessions(form: str) -> None:
    starts = [datetime(2021, 3, 4, 9) + timedelta(hours=26 * session) for session in range(10)]
    sessions = [
        [f"{CLASSES[number % 2]}/{start + timedelta(seconds=40 * image):{form}}.jpg" for image in range(2 + number % 4)]
        for number, start in enumerate(starts)
    ]
    paths = [path for group in sessions for path in group]
    found = found_in(paths)
    assert found and found.where == "times in file names (at most 4.0 h apart)"
    assert members(paths, found) == {frozenset(group) for group in sessions}


def test_a_day_of_bursts_is_divided_into_bursts() -> None:
    first = datetime(2021, 3, 4, 9)
    paths = [
        f"{CLASSES[burst % 2]}/{first + timedelta(minutes=9 * burst, seconds=image):%Y%m%d_%H%M%S}.jpg"
        for burst in range(20)
        for image in range(4)
    ]
    found = found_in(paths)
    assert found and found.where == "times in file names (at most 2 min apart)"
    assert set(Counter(found.names).values()) == {4}


def test_samples_that_are_numbered_anew_in_each_class_are_groups_of_their_class() -> None:
    paths = [
        f"{label}/sample_{sample}/{label[:2]}{sample}-scale_{scale}_im_{image}.png"
        for label in ("cork", "wool", "linen")
        for sample in "abcd"
        for scale in range(2, 5)
        for image in range(4)
    ]
    found = found_in(paths)
    assert found and found.where == "folders"
    assert Counter(found.names) == {f"{c}/sample_{s}": 12 for c in ("cork", "wool", "linen") for s in "abcd"}


def test_a_block_with_images_in_two_classes_is_one_group() -> None:
    paths = [f"{label}/block{block}/{image}.png" for label in CLASSES for block in range(12) for image in range(4)]
    found = found_in(paths)
    assert found and Counter(found.names) == {f"block{block}": 8 for block in range(12)}


def test_parts_that_are_numbered_anew_in_each_split_are_groups_of_their_split() -> None:
    splits = [split for split in ("train", "val") for _ in range(96)]
    paths = [
        f"{split}/{label}/part{part}_{image}.png"
        for split in ("train", "val")
        for label in CLASSES
        for part in range(12)
        for image in range(4)
    ]
    labels = [path.split("/")[1] for path in paths]
    found = found_in(paths, labels, splits)
    assert found and {name.split("/")[0] for name in found.names if name} == {"train", "val"}
    assert len(set(found.names)) == 24


def test_too_few_groups_are_none() -> None:
    videos = [f"{CLASSES[image % 2]}/video{video}_{image:04}.png" for video in range(3) for image in range(60)]
    assert found_in(videos) is None
    one_class_in_one_part = [f"crack/part1_{image}.png" for image in range(40)]
    many = [f"ok/part{part}_{image}.png" for part in range(2, 20) for image in range(5)]
    assert found_in([*one_class_in_one_part, *many]) is None


def test_a_small_class_in_one_part_does_not_hide_the_groups_of_the_others() -> None:
    paths = [path for group in parts_of(NAMES["part12_003"], 20).values() for path in group]
    paths += [f"dent/part99_{image}.png" for image in range(3)]
    found = found_in(paths)
    assert found and len(set(found.names)) == 21


def test_thirty_thousand_names_take_less_than_a_few_seconds() -> None:
    """About 0.2 s with groups and 0.7 s without; the limit leaves room for a busy machine."""
    rng = random.Random(0)
    grouped = [f"{CLASSES[part % 2]}/part{part}_{image:03}.png" for part in range(600) for image in range(50)]
    none = [f"{CLASSES[number % 2]}/{rng.getrandbits(32)}_{rng.getrandbits(40):010x}.png" for number in range(30_000)]
    for paths, is_found in ((grouped, True), (none, False)):
        began = time.process_time()
        assert (found_in(paths) is not None) == is_found
        assert time.process_time() - began < 4


@pytest.mark.parametrize("name", ["trashnet", "xsdd", "ants_bees", "elpv"])
def test_real_sets_without_groups_in_their_names(name: str, shared_data: Path) -> None:
    paths = list(images_below(shared_data / name, Omitted()))
    labels = [path.split("/")[-2] for path in paths]
    if name == "elpv":
        table = (shared_data / "elpv" / "labels.csv").read_text().split()
        defect = dict(zip(table[::3], table[1::3], strict=True))
        labels = [str(float(defect[path]) >= 0.5) for path in paths]
    assert found_in(paths, labels) is None
