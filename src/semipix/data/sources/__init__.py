"""Data sets: which images and labels there are. One file a data set."""
