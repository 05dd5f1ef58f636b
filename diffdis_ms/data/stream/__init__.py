"""What training sees: which samples are good, in which order, read ahead and cached."""
