"""The version of Thaw, which bundles, exports and reports carry."""

__version__ = "0.1.0"
