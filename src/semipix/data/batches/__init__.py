"""From tensors to batches."""
