"""Exports a classifier to other inference engines and certifies that it gives the same probabilities."""
