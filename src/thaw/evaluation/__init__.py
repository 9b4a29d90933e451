"""Evaluation of a trained classifier: calibration, thresholds, review, comparison, cross-validation, explanations."""
