"""Read config files of other tools, key by key. Each key is used, known to have no effect, or refused by name."""
