"""`thaw serve`: a bundle behind HTTP, with a page for people and the Open Inference Protocol for programs."""
