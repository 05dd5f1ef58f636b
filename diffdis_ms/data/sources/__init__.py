"""Readers of training data, one per format; each returns `samples.Sample`s."""
