"""What a user's mistake raises."""


class ConfigError(ValueError):
    """A config file, key or value, or a file from outside, that cannot be used; the message names it and what to do."""
