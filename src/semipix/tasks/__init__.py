"""What a pixel means: one file a task."""
