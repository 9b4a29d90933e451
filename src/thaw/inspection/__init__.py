"""Inspection of a data set before training: duplicates, label errors, outliers, feature shift, learning curve."""
