"""A search that ends in seconds: a small network with random weights, and few epochs."""

from thaw.recipe import PreprocessingSettings, Recipe

RECIPE = Recipe(
    backbone="mobilenetv3_small_050",
    weights="random",
    engine="pytorch-fp32",
    precision="fp32",
    threads=1,
    strategy="top",
    preprocessing=PreprocessingSettings(image_size=48),
)
SPACE = {"phases.1.cut": ["head", "stages:1", "stages:2"], "phases.1.epochs": [2, 3], "head.hidden": [[], [16]]}
