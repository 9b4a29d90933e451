"""Pre-trained networks behind one contract."""
