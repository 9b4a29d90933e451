"""`thaw serve`: predictions over HTTP, with a web page, a plain JSON route and the Open Inference Protocol."""
