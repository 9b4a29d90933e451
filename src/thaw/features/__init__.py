"""Features at the cut: extracted once by the fastest engine, then read from the cache."""
