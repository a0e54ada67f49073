"""Annotations of other tools, read as masks of class indices."""
