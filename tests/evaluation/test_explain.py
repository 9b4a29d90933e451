from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thaw import demo
from thaw.backbones.contract import Backbone
from thaw.backbones.cuts import Block
from thaw.backbones.facts import Features
from thaw.backbones.stages import STATISTICS
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.errors import BackboneError
from thaw.evaluation.explain import class_maps, randomised_agreement
from thaw.features.engines import REFERENCE
from thaw.pipeline import finetune, load
from thaw.prediction.predict import read_pixels
from thaw.prediction.predictor import Predictor
from thaw.progress import NullReporter
from thaw.recipe import DecodeSettings, PreprocessingSettings, Task
from thaw.run_folder import RunFolder

FAMILIES = [
    "resnet18",
    "inception_v3",
    "legacy_xception",
    "xception41",
    "efficientnet_b0",
    "mobilenetv2_050",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "convnext_tiny",
    "densenet121",
    "regnety_016",
]
DEEP = ("inception_v3", "legacy_xception", "xception41", "convnext_tiny", "densenet121", "regnety_016")
SIDE = 128


def classifier_of(
    name: str,
    task: Task = "multiclass",
    hidden: tuple[int, ...] = (),
    size: int = SIDE,
    weights: str = "random",
    features: Features = "last",
) -> Classifier:
    """A classifier of three classes (two for binary) and a head with random weights."""
    backbone = build(name, weights, PreprocessingSettings(image_size=size))
    classes = ("a", "b") if task == "binary" else ("a", "b", "c")
    backbone.use_features(features)
    head = new_head(backbone, outputs_of(task, classes), hidden, 0.2)
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(1))
    return Classifier(backbone, head, classes, task, DecodeSettings())


def noise(count: int, size: int = SIDE) -> np.ndarray:
    """Images of random squares, which vary at the scale of the maps, unlike noise by pixel."""
    squares = np.random.default_rng(0).integers(0, 256, (count, size // 16, size // 16, 3), dtype=np.uint8)
    return squares.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture(scope="module")
def starter() -> Classifier:
    return classifier_of("starter", weights="published")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.ci] if name in DEEP else []) for name in FAMILIES],
)
def test_every_family_has_a_last_map_and_finer_ones(name: str) -> None:
    classifier = classifier_of(name)
    image = noise(1).repeat(3, axis=0)
    last, finer = (class_maps(classifier, image, [0, 1, 2], cut) for cut in ("head", None))
    assert last.shape[0] == finer.shape[0] == 3 and last.dtype == finer.dtype == np.float32
    assert 1 < last.shape[1] < finer.shape[1] <= SIDE // 8
    for maps in (last, finer):
        assert maps.min() == 0 and set(maps.max(axis=(1, 2))) in ({1.0}, {0.0, 1.0})


def test_a_linear_head_on_average_pooling_gives_cam(starter: Classifier) -> None:
    pixels, network = noise(3), starter.backbone.network
    with torch.no_grad():
        value = starter.normalise(torch.from_numpy(pixels))
        value = network.get_submodule("bn2")(
            network.get_submodule("conv_head")(starter.backbone.run(value, 0, len(starter.backbone.blocks) - 1))
        )
        last = starter.head.layers[-1]
        assert isinstance(last, nn.Linear)
        by_hand = torch.einsum("nchw,nc->nhw", value, last.weight[[2, 0, 1]]).relu().numpy()
    by_hand /= by_hand.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(class_maps(starter, pixels, [2, 0, 1], "head"), by_hand, atol=1e-4)


@pytest.mark.parametrize("cut", [None, "head"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_evidence_that_only_an_early_stage_gives_is_found_where_it_is(cut: str | None, statistic: str) -> None:
    classifier = classifier_of("starter", weights="published", features="all")
    last, stem = classifier.head.layers[-1], classifier.backbone.feature_groups[0]
    assert isinstance(last, nn.Linear)
    images = np.full((1, SIDE, SIDE, 3), 120, np.uint8)
    images[:, 80:112, 16:48] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    nn.init.zeros_(last.weight)
    first = STATISTICS.index(statistic) * stem // len(STATISTICS)
    with torch.no_grad():
        last.weight[0, first : first + stem // len(STATISTICS)] = 1.0
    (found,) = class_maps(classifier, images, [0], cut)
    row, column = (SIDE / len(found) * (index + 0.5) for index in np.unravel_index(found.argmax(), found.shape))
    assert 80 <= row < 112 and 16 <= column < 48
    inside = found[len(found) * 80 // SIDE : -(-len(found) * 112 // SIDE), : -(-len(found) * 48 // SIDE)]
    assert inside.sum() > 0.8 * found.sum()


def test_the_map_of_a_head_on_all_stages_depends_on_its_class() -> None:
    classifier, pixels = classifier_of("mobilenetv2_050", features="all"), noise(3)
    maps, others = (class_maps(classifier, pixels, [index] * 3) for index in (0, 1))
    assert (maps.max(axis=(1, 2)) == 1).all() and np.abs(maps - others).max() > 0.1


def test_a_map_depends_on_its_image_and_class_only(starter: Classifier) -> None:
    pixels = noise(20)
    classes = np.arange(20) % 3
    maps = class_maps(starter, pixels, classes)
    for index in (0, 15, 16, 19):
        alone = class_maps(starter, pixels[index : index + 1], classes[index : index + 1])
        np.testing.assert_allclose(maps[index], alone[0], atol=1e-3)
    of_other_class = class_maps(starter, pixels, (classes + 1) % 3)
    assert (np.abs(maps - of_other_class).max(axis=(1, 2)) > 0.1).all()


def test_maps_of_the_two_classes_of_a_binary_task_do_not_overlap() -> None:
    classifier = classifier_of("mobilenetv2_050", "binary")
    one, zero = (class_maps(classifier, noise(2), [side, side]) for side in (1, 0))
    assert one.max() == zero.max() == 1
    assert not ((one > 0) & (zero > 0)).any()


def test_a_head_with_hidden_layers_has_maps() -> None:
    maps = class_maps(classifier_of("mobilenetv2_050", "multilabel", hidden=(16,)), noise(2), [0, 1])
    assert (maps.max(axis=(1, 2)) == 1).all()


def test_the_map_of_a_class_without_evidence_is_empty() -> None:
    new = classifier_of("mobilenetv2_050")
    nn.init.zeros_(new.head.layers[-1].weight)  # type: ignore[arg-type]
    assert not class_maps(new, noise(1), [0]).any()


@pytest.mark.parametrize(("cut", "side"), [("head", 4), ("stages:1", 4), ("stages:3", 8), ("stages:5", 16), (None, 8)])
def test_a_map_has_the_resolution_of_its_cut(starter: Classifier, cut: str | None, side: int) -> None:
    assert class_maps(starter, noise(1), [0], cut).shape == (1, side, side)


def test_pooled_features_below_a_cut_are_skipped() -> None:
    classifier = classifier_of("mobilenetv3_small_100")
    position = classifier.backbone.cut("stages:1").position
    at_cut = classifier.backbone.run(torch.zeros(1, 3, SIDE, SIDE), 0, position)
    assert at_cut.shape[2:] == (1, 1)
    assert class_maps(classifier, noise(1), [0], "stages:1").shape == (1, 4, 4)


@pytest.mark.parametrize("cut", [None, "head", "stages:4"])
def test_weights_gradients_and_modes_are_left_unchanged(cut: str | None) -> None:
    classifier = classifier_of("mobilenetv2_050", hidden=(8,))
    classifier.backbone.thaw(classifier.backbone.cut("stages:2"), "train")
    classifier.train()
    modes = {name: module.training for name, module in classifier.named_modules()}
    assert set(modes.values()) == {True, False}
    state = {name: value.requires_grad for name, value in classifier.named_parameters()}
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    with torch.no_grad():
        class_maps(classifier, noise(2), [0, 1], cut)
        randomised_agreement(classifier, noise(2), [0, 1])
    assert {name: module.training for name, module in classifier.named_modules()} == modes
    assert {name: value.requires_grad for name, value in classifier.named_parameters()} == state
    assert all(value.grad is None for value in classifier.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not any(module._forward_hooks for module in classifier.modules())


def test_a_network_that_cannot_be_cut_has_maps() -> None:
    chained = classifier_of("resnet18")
    backbone = Backbone(chained.backbone.network, (Block("network", ("",)),), chained.backbone.facts)
    whole = Classifier(backbone, chained.head, chained.classes, "multiclass", DecodeSettings())
    assert not whole.backbone.is_divisible
    for cut in ("head", None):
        np.testing.assert_array_equal(
            class_maps(whole, noise(2), [0, 1], cut), class_maps(chained, noise(2), [0, 1], cut)
        )


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("resnet18", "pixels", "no map at or below it in resnet18; use head"),
        ("vit_tiny_patch16_224", None, "vit_tiny_patch16_224: has no maps"),
        ("vit_tiny_patch16_224", "head", "vit_tiny_patch16_224: has no maps"),
    ],
)
def test_a_network_without_maps_is_refused(name: str, cut: str | None, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        class_maps(classifier_of(name, size=224), noise(1, 224), [0], cut)


def test_an_unknown_cut_is_named(starter: Classifier) -> None:
    with pytest.raises(BackboneError, match="has no such stage"):
        class_maps(starter, noise(1), [0], "layer9")


@pytest.mark.slow
@pytest.mark.ci
def test_the_maps_of_the_demo_find_the_synthetic_defects_and_reflect_learning(tmp_path: Path) -> None:
    write_surfaces(tmp_path / "images", images_per_class=demo.IMAGES_PER_CLASS)
    # The phase that thaws, alone: after the head it is kept or not by a single one of 46 validation images.
    recipe = demo.RECIPE.model_copy(update={"phases": demo.RECIPE.phases[1:]})
    finetune(Dataset.open(tmp_path / "images"), recipe, tmp_path / "runs", reporter=NullReporter())
    classifier = load(RunFolder(tmp_path / "runs" / "train-1").path)
    defects = [image for image in write_surfaces(tmp_path / "new", images_per_class=20, seed=1) if image.box]
    pixels = np.stack([read_pixels(classifier, image.file) for image in defects])
    truth = np.array([classifier.classes.index(image.label) for image in defects])
    correct = Predictor(classifier, REFERENCE, classifier.device).probabilities(pixels).argmax(axis=1) == truth
    assert correct.mean() > 0.7

    boxes = boxes_seen(classifier, [image.box for image in defects if image.box])[correct]
    maps = class_maps(classifier, pixels[correct], truth[correct])
    hit, random = hits(maps, boxes, pixels.shape[1])
    assert random < 0.3
    assert hit > 0.85

    assert abs(randomised_agreement(classifier, pixels[:20], truth[:20])) < 0.1
    assert randomised_agreement(classifier, pixels[:4], truth[:4]) == randomised_agreement(
        classifier, pixels[:4], truth[:4]
    )


def boxes_seen(classifier: Classifier, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Boxes (N, 4) in images of 160 x 160 pixels, in pixels of the network input."""
    spec = classifier.backbone.facts.pixels
    return np.array(boxes) * spec.scale / 160 - (spec.scale - spec.size) / 2


def hits(maps: np.ndarray, boxes: np.ndarray, size: int) -> tuple[float, float]:
    """Fractions of maps with their maximum in the box widened by half a cell, and of the area in these boxes."""
    cell = size / maps.shape[1]
    rows, columns = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[1:])
    right, down = (columns + 0.5) * cell, (rows + 0.5) * cell
    left, top, end, bottom = np.clip(boxes + np.array([-1, -1, 1, 1]) * cell / 2, 0, size).T
    inside = (left <= right) & (right <= end) & (top <= down) & (down <= bottom)
    return float(inside.mean()), float(((end - left) * (bottom - top)).mean()) / size**2
