"""The thing that predicts: backbone, head, classes, and what it takes to save and load them."""
