"""Images and labels: read from a source, split, augmented and collected in batches (see `datamodule`)."""
