"""Draw the images and targets of the built-in data."""
