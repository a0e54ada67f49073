"""semipix: pixel-wise models from a few labeled images and many unlabeled ones."""

__version__ = "0.1.0"
