"""Phases, epochs, steps: training above the cut."""
