"""From numbers to choices, each with its reason."""
