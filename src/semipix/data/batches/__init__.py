"""Make batches of tensors."""
