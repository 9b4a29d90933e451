"""Every choice of a run, declared once: the field is the YAML key, the CLI option, the check and the docs row.

A `Recipe` is frozen. `"auto"` (or `None`, where the help says so) means that the plan decides and gives its reason;
after the plan no value is `"auto"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from thaw.errors import RecipeError
from thaw.settings import Section, assign, explain, flatten, help_of, read_scalar

Preset = Literal["none", "light", "standard", "strong"]
Task = Literal["multiclass", "binary", "multilabel"]
Engine = Literal["pytorch-fp32", "pytorch-bf16", "compiled-fp32", "compiled-bf16", "openvino-fp32", "openvino-bf16"]
Monitor = Literal["accuracy", "balanced_accuracy", "macro_f1", "mean_average_precision", "loss"]

LoggerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]
Strategy = Literal["head", "top", "whole", "scratch", "as_written"]

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
_REQUIREMENTS = r"^[^=]+=(0?\.\d+|1|1\.0)(,[^=]+=(0?\.\d+|1|1\.0))*$"


class SplitSettings(Section):
    """How images are divided when the data brings no split of its own."""

    val: Fraction = Field(0.15, description="Share of the images that validation gets, watched all along.")
    test: Fraction = Field(0.15, description="Share of the images kept for the final test; 0 for none.")
    seed: int = Field(0, ge=0, description="Another seed deals the images differently.")

    @model_validator(mode="after")
    def _leaves_images_to_train_on(self) -> SplitSettings:
        if self.val <= 0.0 or self.val + self.test > 0.9:
            raise ValueError("split.val must be above 0, and split.val + split.test at most 0.9")
        return self


class DecodeSettings(Section):
    """How a file becomes 8-bit RGB pixels."""

    max_pixels: int = Field(
        89_478_485, gt=0, le=178_956_970, description="An image with more pixels than this is an error row."
    )
    white_level: Positive | None = Field(
        None,
        description="The value of a 16-bit or float image that becomes 255; default 65535 (16-bit) or 1.0 (float). "
        "A brighter pixel is an error row, never clipped.",
    )
    strict: bool = Field(False, description="Stop at the first unreadable image instead of listing it as an error row.")


class PreprocessingSettings(Section):
    """What the network expects to see; `None` takes what comes with the weights."""

    image_size: int | None = Field(None, ge=32, le=1024, description="Side of the square the network sees, in pixels.")
    crop_pct: float | None = Field(
        None, gt=0.0, le=1.0, description="Side of the crop relative to the resized image, when evaluating."
    )
    crop_mode: Literal["center", "squash", "border"] | None = Field(
        None,
        description="center: short side resized, middle cut out; squash: both sides resized; "
        "border: long side resized, padded.",
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] | None = Field(
        None, description="How pixels are resampled when an image is resized."
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="Per-channel mean of pixels in 0..1 that the network was trained with."
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        None, description="Per-channel standard deviation of pixels in 0..1 that the network was trained with."
    )


class HeadSettings(Section):
    """The new head on the pre-trained network."""

    pooling: Literal["avg", "max", "avgmax"] = Field("avg", description="Global pooling over the last maps.")
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (), description="Units of each hidden layer between pooling and the last layer; none by default."
    )
    dropout: Fraction = Field(0.2, description="Dropout before each layer of the head.")


class DecideSettings(Section):
    """What follows from the probabilities: which label, and when a person should look."""

    recall: str | None = Field(
        None,
        pattern=_REQUIREMENTS,
        description="Find at least this share of a class, such as crack=0.99: its threshold is chosen on validation.",
    )
    precision: str | None = Field(
        None, pattern=_REQUIREMENTS, description="Be right at least this often about a class, such as crack=0.9."
    )
    costs: str | None = Field(
        None,
        description="What confusions cost, as TRUE>PREDICTED=COST with commas between; one that is not named costs 1. "
        "The label with the lowest expected cost is given.",
    )
    coverage: Fraction = Field(
        0.95,
        description="Share of images whose true class is among the candidates; an image with several candidates, or "
        "none, is one for a person.",
    )
    review_policy: Fraction = Field(
        0.95, description="Share of validation images that count as like those of training; what lies farther is not."
    )


class AugmentSettings(Section):
    """Random changes that keep the label; a value left out comes from the preset."""

    preset: Preset = Field("standard", description="How much training images are changed at random.")
    rotation: float | None = Field(None, ge=0, le=180, description="Largest rotation either way, in degrees.")
    horizontal_flip: bool | None = Field(None, description="Mirror left-right in half of the views.")
    vertical_flip: bool | None = Field(None, description="Mirror up-down in half of the views.")
    zoom: float | None = Field(None, ge=0, lt=1, description="Largest change of scale either way, as a share.")
    shift: float | None = Field(None, ge=0, lt=1, description="Largest shift either way, as a share of the side.")
    brightness: float | None = Field(None, ge=0, lt=1, description="Largest change of brightness, as a share of white.")
    contrast: float | None = Field(None, ge=0, lt=1, description="Largest change of contrast either way, as a share.")
    crop: float | None = Field(
        None, gt=0, le=1, description="Smallest share of the area that a random crop keeps; 1 for no random crop."
    )


class Phase(Section):
    """One stretch of training with one cut."""

    name: str = Field(description="What the phase is called in tables and files.", pattern=r"^[a-z0-9_-]{1,32}$")
    cut: str = Field(
        description="Where training begins: `head`; `stages:N`, the top N stages; `layers:N`, the last N layers; "
        "a stage or block by name, such as `layer4`; `pixels`, the whole network."
    )
    epochs: int = Field(ge=1, le=10_000, description="Epochs at most; one epoch sees one view of every image.")
    lr: float = Field(gt=0, le=10, description="Learning rate at its highest.")
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = Field("adamw", description="The optimizer.")
    weight_decay: float = Field(0.01, ge=0, lt=1, description="Weight decay, on weights but not on biases and norms.")
    momentum: Fraction = Field(0.9, description="Momentum of sgd and rmsprop.")
    schedule: Literal["constant", "cosine", "cosine_restarts", "plateau", "one_cycle"] = Field(
        "cosine", description="How the learning rate moves within the phase."
    )
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs over which the learning rate climbs from zero.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Each stage below the head learns at this multiple of the one above."
    )
    patience: int | None = Field(
        5, ge=1, description="Epochs without a better validation result before the phase stops; null for never."
    )
    batch_size: int = Field(32, ge=1, le=65536, description="Images in one step.")
    solver: Literal["auto", "steps", "lbfgs"] = Field(
        "auto",
        description="steps: the optimizer, batch by batch; lbfgs: a linear head is solved for all stored views at "
        "once, and validation chooses its L2 penalty (epochs is then how many are tried, and optimizer, lr, schedule, "
        "batch_size and weight_decay have no say); auto: lbfgs where the phase trains nothing but a linear head.",
    )
    mixup: float = Field(
        0.0, ge=0, le=10, description="Blend pairs of images at the cut, in shares from Beta(mixup, mixup); 0 for none."
    )
    label_smoothing: Fraction = Field(0.0, description="Share of the target spread over all classes.")
    batchnorm: Literal["frozen", "train"] = Field(
        "frozen", description="Whether BatchNorm above the cut keeps its statistics or learns new ones."
    )
    inputs: Literal["auto", "stored", "fresh"] = Field(
        "auto",
        description="stored: features at the cut are computed once for all views; fresh: every epoch draws new views "
        "and runs the frozen part again; auto: stored where something is frozen and the features fit the cache.",
    )
    augment: Preset | None = Field(
        None, description="Another augmentation preset for this phase; null for the recipe's."
    )
    optional: bool = Field(
        False,
        description="Leave this phase out where validation has no mistake left to mend, or where the phase before it, "
        "that thawed less, was worth no more than the noise.",
    )


HEAD_PHASE = Phase(name="head", cut="head", epochs=20, lr=3e-3, batch_size=32)
FINE_TUNE_PHASE = Phase(name="fine-tune", cut="stages:3", epochs=20, lr=3e-4, warmup_epochs=1, layer_decay=0.8)


_LISTS = {"phases": Phase}


class Recipe(Section):
    """Every choice of one run."""

    task: Literal["auto", "multiclass", "binary", "multilabel"] = Field(
        "auto", description="multiclass: one label of several; binary: one sigmoid; multilabel: any number of labels."
    )
    backbone: str = Field(
        "mobilenetv2_100",
        description="Pre-trained network; `thaw models` lists them; auto: the most accurate of the candidates under "
        "cross-validation on stored features.",
    )
    candidates: tuple[str, ...] = Field(
        (),
        description="Backbones that auto chooses among, as NAME or NAME=FILE, with commas between them; none: the "
        "starter and every network whose weights are on this machine.",
    )
    max_latency_ms: Positive | None = Field(
        None, description="Backbone auto: milliseconds at most for one image alone on this machine."
    )
    max_size_mb: Positive | None = Field(
        None, description="Backbone auto: megabytes at most that the weights may take, in single precision."
    )
    weights: str = Field(
        "published",
        description="published: those of the architecture's authors (cached or from the Hub); random; "
        "or a .safetensors or .pth file.",
    )
    seed: int = Field(0, ge=0, description="Same seed, data, machine, engine and precision: same weights.")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N or mps.")
    engine: Literal["auto"] | Engine = Field(
        "auto", description="What runs the frozen part; auto: the fastest that a probe finds equal to pytorch-fp32."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Number format of the thawed part; auto: bf16 where a probe finds it faster and equal."
    )
    views: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="Augmented views of each training image that are computed once and stored."
    )
    stored_as: Literal["auto", "float16", "uint8"] = Field(
        "auto",
        description="How features are stored: half precision, or eight bits with a scale for each channel of a view; "
        "auto: eight bits where half precision does not fit the cache.",
    )
    cache_gb: float | None = Field(
        None, ge=0, description="Disk that stored features may take; null for half of what is free; 0 stores nothing."
    )
    class_weights: Literal["auto", "none", "balanced"] = Field(
        "auto", description="balanced: rare classes weigh more in the loss; auto: where the classes are imbalanced."
    )
    monitor: Literal["auto"] | Monitor = Field(
        "auto", description="Validation metric by which the best epoch is chosen; ties go to the lower loss."
    )
    strategy: Literal["auto"] | Strategy = Field(
        "auto",
        description="How deep training goes. head: the head alone; top: then the top stages, and deeper while that "
        "pays; whole: then the whole network; scratch: all of it at once; as_written: the phases as they stand, which "
        "a recipe that names phases means; auto: by how many images there are and how near they lie to those of the "
        "pre-training.",
    )
    target: str | None = Field(
        None,
        pattern=r"^(accuracy|balanced_accuracy|macro_f1|mean_average_precision)=(0?\.\d+|1|1\.0)$",
        description="Stop as soon as validation shows this with 95 % confidence, such as accuracy=0.97; null for "
        "never.",
    )
    loggers: tuple[LoggerName, ...] = Field(
        ("tensorboard",),
        description="Who is told the figures of each epoch beside metrics.csv: tensorboard, mlflow, wandb, trackio, "
        "with commas between them; none for nobody.",
    )
    decode: DecodeSettings = Field(DecodeSettings(), description="From file to pixels.")
    split: SplitSettings = Field(SplitSettings(), description="Train, validation and test.")
    preprocessing: PreprocessingSettings = Field(PreprocessingSettings(), description="What the network sees.")
    augment: AugmentSettings = Field(AugmentSettings(), description="Random changes of training images.")
    head: HeadSettings = Field(HeadSettings(), description="The new head.")
    decide: DecideSettings = Field(DecideSettings(), description="From probabilities to labels.")
    phases: tuple[Phase, ...] = Field(
        (HEAD_PHASE, FINE_TUNE_PHASE), min_length=1, description="What is trained, one phase after the other."
    )

    @field_validator("candidates", "loggers", mode="before")
    @classmethod
    def _names_between_commas(cls, value: Any) -> Any:
        if value == "none":
            return ()
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _named_phases_are_meant(cls, values: Any) -> Any:
        """Phases that somebody wrote are not planned away, unless a strategy is named beside them."""
        if isinstance(values, dict) and "phases" in values and "strategy" not in values:
            return {**values, "strategy": "as_written"}
        return values

    @model_validator(mode="after")
    def _phases_have_distinct_names(self) -> Recipe:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases share a name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _only_a_linear_head_can_be_solved(self) -> Recipe:
        for phase in self.phases:
            if phase.solver == "lbfgs" and not self.can_solve(phase):
                raise ValueError(
                    f"phase {phase.name}: solver lbfgs needs cut head, no hidden layers in the head, and mixup 0"
                )
        return self

    def can_solve(self, phase: Phase) -> bool:
        """Whether a phase trains nothing but a linear head on what images give, so that it can be solved at once."""
        return phase.cut == "head" and not self.head.hidden and phase.mixup == 0

    @property
    def resolved_precision(self) -> Literal["fp32", "bf16"]:
        """The number format, once the plan has decided."""
        assert self.precision != "auto"
        return self.precision

    @property
    def resolved_engine(self) -> Engine:
        """What runs the frozen part, once the plan has decided."""
        assert self.engine != "auto"
        return self.engine

    @property
    def resolved_monitor(self) -> Monitor:
        """The monitored metric, once the plan has decided."""
        assert self.monitor != "auto"
        return self.monitor

    @classmethod
    def load(cls, file: Path) -> Recipe:
        """Read a recipe from YAML; raises `RecipeError` that names the file and the key."""
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"{file}: cannot be read as a YAML recipe: {error}") from error
        if values is not None and not isinstance(values, dict):
            raise RecipeError(f"{file}: a recipe is a table of `key: value` lines, this is a {type(values).__name__}")
        return cls.from_values(values or {}, where=str(file))

    @classmethod
    def from_values(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Check plain values; raises `RecipeError` with one line for each key that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError("\n".join(f"{where}: {line}" for line in explain(error, cls, _LISTS))) from error

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """A copy with dotted keys changed, for example `{"phases.1.lr": 1e-5}`; text is read as YAML."""
        values = self.model_dump(mode="json")
        if self.strategy == "auto" and any(key.startswith("phases.") for key in settings):
            values["strategy"] = "as_written"
        for key, value in settings.items():
            assign(values, key, read_scalar(value))
        return type(self).from_values(values)

    def to_yaml(self) -> str:
        """The whole recipe as YAML that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)

    def differences(self, other: Recipe) -> list[str]:
        """One line `key: this -> that` for each setting in which two recipes differ."""
        mine, theirs = dict(flatten(self.model_dump(mode="json"))), dict(flatten(other.model_dump(mode="json")))
        keys = [*mine, *(key for key in theirs if key not in mine)]
        absent = "(absent)"
        return [
            f"{key}: {mine.get(key, absent)} -> {theirs.get(key, absent)}"
            for key in keys
            if mine.get(key, absent) != theirs.get(key, absent)
        ]


def settings_help() -> Iterator[tuple[str, str, str]]:
    """Each setting as (dotted key, default, help sentence), for the CLI and the docs."""
    yield from help_of(Recipe, _LISTS)
