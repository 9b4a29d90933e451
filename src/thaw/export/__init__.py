"""A finished classifier as one deployable for other engines, certified after it is written."""
