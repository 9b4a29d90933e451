"""The guide's own Keras code on TensorFlow: frozen base, pooling, dropout, dense; then the top unfrozen.

Images are decoded once and kept in memory (`cache`), the changes are Keras layers in `tf.data`, and the base is
called with `training=False` throughout, so that BatchNorm stays in inference mode in phase 2.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from keras import layers

from bench.versus import interface
from bench.versus.curve import seconds_since_birth
from bench.versus.jobs import BATCH_SIZE, DROPOUT, HEAD_RATE, TOP_RATE
from bench.versus.memory import PeakMemory
from bench.versus.peers.keras_weights import load_from_model, load_mobilenetv2

Rows = list[tuple[Path, int]]


class EpochClock(keras.callbacks.Callback):
    """Seconds of each epoch with its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.started)


class AfterEpoch(keras.callbacks.Callback):
    """Calls a function after each epoch."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self.call = call

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.call()


def dataset(
    rows: Rows, preprocessing: interface.Preprocessing, changes: keras.Sequential | None, seed: int
) -> tf.data.Dataset:
    """Batches of images 0..255; `changes` makes it the shuffled training set."""
    resized = round(preprocessing.size / preprocessing.crop_pct)

    def read(file: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        side = tf.cast(tf.round(shape * resized / tf.reduce_min(shape)), tf.int32)
        image = tf.image.resize(image, side, antialias=True)
        image = tf.image.resize_with_crop_or_pad(image, preprocessing.size, preprocessing.size)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), target

    files, targets = [str(file) for file, _ in rows], [target for _, target in rows]
    data = tf.data.Dataset.from_tensor_slices((files, targets)).map(read, tf.data.AUTOTUNE).cache()
    if changes is not None:
        data = data.shuffle(len(rows), seed=seed)
    data = data.batch(BATCH_SIZE).map(lambda images, target: (tf.cast(images, tf.float32), target))
    if changes is not None:
        data = data.map(lambda images, target: (changes(images, training=True), target), tf.data.AUTOTUNE)
    return data.prefetch(tf.data.AUTOTUNE)


def augmentation() -> keras.Sequential:
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(15 / 360),
            layers.RandomZoom(0.1),
            layers.RandomTranslation(0.05, 0.05),
            layers.RandomBrightness(0.1),
            layers.RandomContrast(0.1),
        ]
    )


def build(name: str, preprocessing: interface.Preprocessing, classes: int) -> tuple[keras.Model, keras.Model]:
    """The whole model, and its base with random weights."""
    shape = (preprocessing.size, preprocessing.size, 3)
    base = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=shape)
    inputs = keras.Input(shape)
    value = inputs
    if not any(isinstance(layer, layers.Rescaling) for layer in base.layers):
        value = layers.Rescaling(1 / 255)(value)
        value = layers.Normalization(mean=preprocessing.mean, variance=[std**2 for std in preprocessing.std])(value)
    value = layers.GlobalAveragePooling2D()(base(value, training=False))
    outputs = layers.Dense(classes, activation="softmax", dtype="float32")(layers.Dropout(DROPOUT)(value))
    return keras.Model(inputs, outputs), base


def thaw(base: keras.Model, top: tuple[str, ...]) -> None:
    """Freeze the base except layers with these name prefixes."""
    base.trainable = bool(top)
    for layer in base.layers:
        layer.trainable = layer.name.startswith(top) if top else False


def main() -> None:
    arguments, outcome = interface.begin(__doc__, ("fp32", "bf16"))
    outcome.seconds["start"] = seconds_since_birth()
    facts = interface.facts_of(arguments)
    with PeakMemory(os.getpid()) as peak, tempfile.TemporaryDirectory() as folder:
        with outcome.part("data"):
            keras.utils.set_random_seed(arguments.seed)
            if arguments.precision == "bf16":
                keras.mixed_precision.set_global_policy("mixed_bfloat16")
            splits, classes = interface.read_rows(arguments.table, arguments.limit)
            preprocessing = interface.read_preprocessing(arguments.weights)
            changes = augmentation()
            data = {
                split: dataset(rows, preprocessing, changes if split == "train" else None, arguments.seed)
                for split, rows in splits.items()
            }
            model, base = build(facts.keras, preprocessing, len(classes))
            if arguments.weights.suffix == ".keras":
                load_from_model(base, arguments.weights)
            elif arguments.backbone == "mobilenetv2_100":
                load_mobilenetv2(base, arguments.weights)
            else:
                outcome.notes.append(f"{facts.keras} of Keras, random weights of its own")

        def accuracy() -> float:
            return float(model.evaluate(data["test"], verbose=0)[1])

        phases: list[interface.Phase] = [("phase1", arguments.epochs_head, (), HEAD_RATE)]
        if arguments.epochs_top:
            phases.append(("phase2", arguments.epochs_top, facts.keras_top, TOP_RATE))
        best_file, best = str(Path(folder) / "best.weights.h5"), -1.0
        for name, epochs, top, rate in phases:
            with outcome.part(name):
                thaw(base, top)
                model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
                clock = EpochClock()
                keep = keras.callbacks.ModelCheckpoint(
                    best_file,
                    monitor="val_accuracy",
                    mode="max",
                    save_best_only=True,
                    save_weights_only=True,
                    initial_value_threshold=best,
                )
                after = AfterEpoch(lambda: outcome.test_epoch(accuracy))
                calls = [clock, keep, after]
                model.fit(data["train"], validation_data=data["val"], epochs=epochs, callbacks=calls, verbose=2)
                model.load_weights(best_file)
                best = float(keep.best)
                outcome.epoch_seconds[name] = clock.seconds
        with outcome.part("evaluation"):
            outcome.val_accuracy = best
            outcome.test(accuracy)
    interface.finish(outcome, peak, ("keras", "tensorflow_cpu", "numpy"))


if __name__ == "__main__":
    main()
