"""What a trained run is used for: evaluation and prediction of folders."""
