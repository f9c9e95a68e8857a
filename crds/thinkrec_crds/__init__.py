"""thinkrec."""
