"""HTML pages: their templates, and images embedded as data URLs."""
