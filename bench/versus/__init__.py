"""Thaw compared with alternatives on the same job: `python -m bench.versus --help`."""
