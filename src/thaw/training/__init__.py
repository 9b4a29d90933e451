"""Training above the cut: phases, epochs and steps."""
