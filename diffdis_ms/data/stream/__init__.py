"""The training data stream: check samples, order them, read ahead, cache."""
