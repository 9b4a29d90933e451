"""The model: backbone, head and classes, how labels follow from probabilities, and what is flagged for review."""
