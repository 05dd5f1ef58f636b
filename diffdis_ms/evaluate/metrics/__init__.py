"""Accuracy, recall, FID and KID, in NumPy."""
