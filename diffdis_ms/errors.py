"""What a user's mistake, or a file from outside, raises; `runtime.cli.run` prints each as one line."""


class ConfigError(ValueError):
    """A config file, key or value, or a file from outside, that cannot be used; the message names it and what to do."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be read or does not fit; the message names the file, what is wrong and what to do."""


class BadImage(ValueError):
    """An image that cannot be used; the message is one line that says why."""


class BadSample(ValueError):
    """A sample that cannot be used. `key` names it, `reason` is one line."""

    def __init__(self, key, reason):
        super().__init__(f'{key}: {reason}')
        self.key, self.reason = key, reason
