"""The groups of settings in a recipe, and its phases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from thaw.durations import seconds_of
from thaw.recipe.ranges import Range, Values
from thaw.settings import Section

Preset = Literal["none", "light", "standard", "strong"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Required = Annotated[float, Field(gt=0.0, le=1.0)]
Seconds = Annotated[
    float,
    Field(gt=0.0, allow_inf_nan=False, strict=True),
    BeforeValidator(lambda value: seconds_of(value) if isinstance(value, str) else value),
]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
USUAL_BATCH = 32
"""Images per step where nothing speaks for another number, and those that a learning rate is for."""

Cost = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]


class FolderSettings(Section):
    """How a folder of labelled images is read."""

    layout: Literal["classes", "splits"] | None = Field(
        None,
        description="What the folders in the data folder are: classes, or splits (train, val, test) with class folders "
        "in them; null tells by their names and content, and stops where it cannot.",
    )
    exclude: tuple[str, ...] = Field(
        (), description="Folders in the data folder to leave out: names, or paths relative to it."
    )


class MeasureSettings(Section):
    """What the plan measures by cross-validation on cached features."""

    seconds: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Time for the measurements; null for an eighth of the longest predicted training time, which is "
        "about a third of what training takes, and at least 10 s; 0 for none.",
    )
    image_sizes: tuple[Annotated[int, Field(ge=32, le=1024)], ...] = Field(
        (160, 320),
        description="Image sizes that are compared with the size the network was trained at, where time allows; empty "
        "for none. A size that the recipe sets is kept.",
    )


class SplitSettings(Section):
    """How images are split when the data has no splits of its own."""

    val: Fraction = Field(0.15, description="Fraction of the images for validation.")
    test: Fraction = Field(0.15, description="Fraction of the images for the final test; 0 for no test set.")
    seed: Seed = Field(0, description="Random seed for the split.")
    group_by: str = Field(
        "auto",
        min_length=1,
        description="Which images are of one part, scene or session and stay in the same split. column: those with the "
        "same value in the column `group` of the data. found: what is found in folders, file names and EXIF capture "
        "times. none: no groups. A regular expression: those in whose paths (relative to the data folder) it, or its "
        "first group, matches the same text. auto: the column if there is one, else what is found.",
    )

    @field_validator("group_by")
    @classmethod
    def _is_a_regular_expression(cls, group_by: str) -> str:
        try:
            re.compile(group_by)
        except re.error as error:
            raise ValueError(
                rf"neither auto, column, found nor none, nor a regular expression such as (part\d+)_ ({error})"
            ) from error
        return group_by

    @model_validator(mode="after")
    def _leaves_images_to_train_on(self) -> SplitSettings:
        if self.val <= 0.0 or self.val + self.test > 0.9:
            raise ValueError("split.val must be above 0, and split.val + split.test at most 0.9")
        return self


class DecodeSettings(Section):
    """How an image file becomes 8-bit RGB pixels."""

    max_pixels: int = Field(
        89_478_485, gt=0, le=178_956_970, description="Images with more pixels than this are unreadable."
    )
    white_level: Positive | None = Field(
        None,
        description="Value of a 16-bit or float image that maps to 255; default 65535 (16-bit) or 1.0 (float). Images "
        "with brighter pixels are unreadable; nothing is clipped.",
    )
    strict: bool = Field(False, description="Stop at the first unreadable image instead of reporting it.")


class PreprocessingSettings(Section):
    """What the network expects as input; null takes what the weights were trained with."""

    image_size: Annotated[int | None, Values((None, 160, 192, 256, 320, 384, 448))] = Field(
        None, ge=32, le=1024, description="Input size of the network (square), in pixels."
    )
    crop_pct: float | None = Field(
        None, ge=0.1, le=1.0, description="Side of the center crop relative to the resized image, at evaluation."
    )
    crop_mode: Literal["center", "squash", "border"] | None = Field(
        None,
        description="center: resize the short side, crop the center; squash: resize both sides; "
        "border: resize the long side and pad.",
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] | None = Field(
        None, description="Interpolation used to resize images."
    )
    mean: tuple[Mean, Mean, Mean] | None = Field(
        None, description="Per-channel mean for normalization, of pixels in 0..1."
    )
    std: tuple[Deviation, Deviation, Deviation] | None = Field(
        None, description="Per-channel standard deviation for normalization, of pixels in 0..1."
    )


class HeadSettings(Section):
    """The new classification head."""

    pooling: Literal["avg", "max", "avgmax"] = Field("avg", description="Global pooling of the last feature map.")
    features: Annotated[Literal["auto", "last", "all"], Values(("last", "all"))] = Field(
        "auto",
        description="What the head takes. last: the pooled features of the last stage; all: also the mean and standard "
        "deviation of each channel in the maps of the stages below (Head2Toe, Evci et al. 2022).",
    )
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Values(((), (128,), (512,)))] = Field(
        (), description="Units of each hidden layer between the features and the output layer; none by default."
    )
    dropout: Annotated[Fraction, Range(0.0, 0.5)] = Field(
        0.2, description="Dropout rate before each layer of the head."
    )

    @property
    def taken(self) -> Literal["last", "all"]:
        """What the head takes; the last stage until that is decided."""
        return "last" if self.features == "auto" else self.features

    @property
    def is_open(self) -> bool:
        """Whether what it takes is to be measured.

        That is measured by linear heads, and one with hidden layers does more with the last stage.
        """
        return self.features == "auto" and not self.hidden


class DecisionSettings(Section):
    """From probabilities to labels: decision thresholds, costs, and what is flagged for review."""

    recall: Mapping[str, Required] = Field(
        {}, description="Target recall by class, such as {crack: 0.99}; the threshold is chosen on validation."
    )
    precision: Mapping[str, Required] = Field(
        {}, description="Target precision by class, such as {crack: 0.9}; the threshold is chosen on validation."
    )
    costs: Mapping[str, Mapping[str, Cost]] = Field(
        {},
        description="Cost of each misclassification, as {true class: {predicted class: cost}}; those not listed cost "
        "1. The label with the lowest expected cost is predicted.",
    )
    coverage: Fraction = Field(
        0.95,
        description="Fraction of images whose true class is among the candidate classes (conformal prediction). An "
        "image whose label is not its only candidate is flagged for review as ambiguous.",
    )
    in_distribution: Fraction = Field(
        0.95,
        description="Fraction of validation images that count as in-distribution; an image farther from the training "
        "images is flagged for review as out-of-distribution.",
    )


class AugmentSettings(Section):
    """Data augmentation; a value that is not set comes from the preset."""

    preset: Literal["auto"] | Preset = Field(
        "auto",
        description="Strength of the data augmentation; auto: measured on the features of the images, and standard "
        "where it cannot be, or where any other value of augment is set.",
    )
    rotation: float | None = Field(None, ge=0, le=180, description="Maximum rotation in degrees, in either direction.")
    horizontal_flip: bool | None = Field(None, description="Flip half of the views left-right.")
    vertical_flip: bool | None = Field(None, description="Flip half of the views up-down.")
    zoom: float | None = Field(None, ge=0, lt=1, description="Maximum zoom in or out, as a fraction.")
    shift: float | None = Field(None, ge=0, lt=1, description="Maximum shift, as a fraction of the image side.")
    brightness: float | None = Field(None, ge=0, lt=1, description="Maximum change of brightness, as a fraction.")
    contrast: float | None = Field(None, ge=0, lt=1, description="Maximum change of contrast, as a fraction.")
    crop: float | None = Field(
        None, gt=0, le=1, description="Minimum fraction of the area that a random crop keeps; 1 for no random crop."
    )

    @property
    def is_open(self) -> bool:
        """Whether nothing is set, so that the plan may choose all of it."""
        return self == AugmentSettings()


class Phase(Section):
    """One phase of training, with one cut.

    Raises pydantic's `ValidationError` where it is made with a wrong setting; a recipe whose phases are plain values
    raises `RecipeError`.
    """

    name: str = Field(description="Name of the phase in tables and files.", pattern=r"^[a-z0-9_-]{1,32}$")
    cut: Annotated[str, Values(("head", "stages:1", "stages:2", "stages:3", "stages:5", "pixels"))] = Field(
        description="The lowest part that trains; everything below is frozen. `head`; `stages:N`, the top N stages; "
        "`layers:N`, the last N layers; a stage or block by name, such as `layer4`; `pixels`, the whole network."
    )
    epochs: Annotated[int, Values((4, 6, 10, 20))] = Field(
        ge=1, le=10_000, description="Maximum number of epochs; an epoch is one view of every image."
    )
    lr: Annotated[float, Range(3e-5, 3e-3, log=True)] = Field(gt=0, le=10, description="Peak learning rate.")
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = Field("adamw", description="The optimizer.")
    weight_decay: float = Field(0.01, ge=0, lt=1, description="Weight decay; not applied to biases and norm layers.")
    momentum: Fraction = Field(0.9, description="Momentum of sgd and rmsprop.")
    schedule: Literal["constant", "cosine", "cosine_restarts", "plateau", "one_cycle"] = Field(
        "cosine", description="Learning-rate schedule within the phase."
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Epochs of linear learning-rate warm-up; not applied to one_cycle, which has a warm-up of its own.",
    )
    layer_decay: Annotated[float, Range(0.5, 1.0)] = Field(
        1.0, gt=0, le=1, description="Layer-wise learning-rate decay: factor from each stage to the one below it."
    )
    patience: int | None = Field(
        5, ge=1, description="Early stopping: epochs without improvement on validation; null to disable."
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = Field(
        "auto",
        description="Images per step. auto: 32; on a GPU the smallest that reaches 95% of the best measured speed and "
        "leaves enough steps, with lr times the square root of batch_size / 32.",
    )
    solver: Literal["auto", "optimizer", "lbfgs"] = Field(
        "auto",
        description="optimizer: gradient steps batch by batch. lbfgs: fit a linear head on all cached views at once, "
        "with the L2 penalty chosen on validation (epochs is then the number of penalties; optimizer, lr, schedule, "
        "batch_size, weight_decay and patience are ignored). auto: lbfgs where only a linear head trains.",
    )
    mixup: Annotated[float, Values((0.0, 0.2))] = Field(
        0.0, ge=0, le=10, description="Alpha of mixup, applied at the cut; 0 to disable."
    )
    label_smoothing: Annotated[Fraction, Values((0.0, 0.1))] = Field(0.0, description="Label smoothing.")
    batchnorm: Literal["frozen", "train"] = Field(
        "frozen", description="Whether BatchNorm layers above the cut keep their statistics or update them."
    )
    inputs: Literal["auto", "cached", "fresh"] = Field(
        "auto",
        description="cached: extract the features of all views once and read them from the feature cache. fresh: draw "
        "new views and run the frozen part in every epoch. auto: cached where something is frozen and it fits.",
    )
    augment: Annotated[Preset | None, Values(("none", "light", "standard", "strong"))] = Field(
        None, description="Augmentation preset of this phase; null for that of the recipe."
    )
    freeze_after: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        description="Numbers of epochs. After each of them the lowest stage that trains is frozen again, and the phase "
        "goes on above it, from features that are extracted once more. The top stage is never frozen.",
    )
    optional: bool = Field(
        False,
        description="Skip if the phase before it was not kept, if too few errors are left on validation for it to be "
        "kept, or if the gain to expect from thawing deeper is within one standard error; end after three epochs, or "
        "30% if that is more, if none of them is as good as what the phase would replace.",
    )

    @property
    def usual_batch_size(self) -> int:
        """Images per step, as many as usual until that is decided."""
        return USUAL_BATCH if self.batch_size == "auto" else self.batch_size
