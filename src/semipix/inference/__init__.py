"""Use of trained runs: evaluation, and prediction of folders of images."""
