"""Tasks, which define what a pixel means; one file per task."""
