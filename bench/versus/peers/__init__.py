"""One module per peer; each runs in its own environment and takes the arguments of `bench.versus.interface`."""
