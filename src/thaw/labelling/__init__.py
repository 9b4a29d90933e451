"""Which images to label next: typical ones while there are few labels, then those that the head is uncertain about."""
