"""The check of Thaw on a GPU: `python -m bench.gpu`; the README of this folder has its results."""
