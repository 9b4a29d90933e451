"""Hyperparameter search over one feature cache: most trials read what is already computed.

The package is named for what it does, because `thaw.search` is the public function.
"""
