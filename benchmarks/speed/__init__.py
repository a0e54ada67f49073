"""Time and memory of training, reading and prediction."""
