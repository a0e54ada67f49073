"""Which networks there are and which losses tie them together: one file a paper."""
