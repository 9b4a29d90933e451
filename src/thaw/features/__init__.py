"""What lies at the cut, computed once."""
