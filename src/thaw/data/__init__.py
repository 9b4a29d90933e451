"""From files on disk to rows, pixels and splits; knows nothing of networks."""
