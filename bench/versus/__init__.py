"""Thaw beside what people would use instead, on the same job: `python -m bench.versus --help`."""
