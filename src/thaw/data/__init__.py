"""From files on disk to rows, pixels and splits; independent of networks."""
