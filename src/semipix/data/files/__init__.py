"""Read files as tensors."""
