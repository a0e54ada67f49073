"""The train command: overrides, sweeps and the paper's settings."""
