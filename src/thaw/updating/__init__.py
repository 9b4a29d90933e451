"""`thaw update`: a finished run learns new images from the cached features of its own, without their files."""
