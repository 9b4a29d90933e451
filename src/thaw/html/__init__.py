"""What every page is made of: the templates, and images small enough to be part of one file."""
