"""Studio: label images, train on them, look at the mistakes and fix the labels, in the browser on this machine."""
