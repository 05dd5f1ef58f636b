"""What can be read for training: one reader a format, each gives `samples.Sample`s."""
