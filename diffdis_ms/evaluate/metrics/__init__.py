"""Accuracy, recall and FID, in NumPy alone."""
