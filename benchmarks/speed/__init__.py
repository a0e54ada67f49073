"""Seconds, images a second and memory of training, reading and predicting."""
