"""Classification metrics: one table of them, their values on scored images, and 95% intervals.

A new metric is one entry of `METRICS` (of a whole set) or `CLASS_METRICS` (of each class) in `table.py`. Evaluation,
comparison, cross-validation, console, report, model card, loggers and metrics.csv iterate these tables.
"""

from thaw.metrics.estimates import (
    Estimates,
    MetricValues,
    differences,
    measure,
    most_likely,
    overall,
    overall_and_per_class,
    per_class,
    values_of,
)
from thaw.metrics.intervals import Estimate, fraction, mean_interval, paired_difference, paired_differences, wilson
from thaw.metrics.jackknife import influence_scores, paired_standard_error, values_without_each
from thaw.metrics.rates import ClassRates, rates_of_class, rates_of_classes
from thaw.metrics.scored import Scored, confidence_of, truth_of
from thaw.metrics.table import BINS, CLASS_METRICS, METRICS, MONITORS, Metric, bin_of, per_epoch_metrics

__all__ = [
    "BINS",
    "CLASS_METRICS",
    "METRICS",
    "MONITORS",
    "ClassRates",
    "Estimate",
    "Estimates",
    "Metric",
    "MetricValues",
    "Scored",
    "bin_of",
    "confidence_of",
    "differences",
    "fraction",
    "influence_scores",
    "mean_interval",
    "measure",
    "most_likely",
    "overall",
    "overall_and_per_class",
    "paired_difference",
    "paired_differences",
    "paired_standard_error",
    "per_class",
    "per_epoch_metrics",
    "rates_of_class",
    "rates_of_classes",
    "truth_of",
    "values_of",
    "values_without_each",
    "wilson",
]
