"""How good a finished classifier is."""
