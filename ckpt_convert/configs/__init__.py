"""The config files beside foreign weights, key by key: used, known to change nothing, or refused by name."""
