"""The built-in data, which are drawn."""
