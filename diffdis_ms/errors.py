"""Exceptions for users' mistakes and unusable files. `runtime.cli.run` prints each as one line."""


class ConfigError(ValueError):
    """A config file, key, value or other file cannot be used. The message names it and says what to do."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be read or does not fit. The message names the file, what is wrong and what to do."""


class BadImage(ValueError):
    """An image cannot be used. The message says why in one line."""


class BadSample(ValueError):
    """A sample cannot be used. `key` names it, `reason` says why in one line."""

    def __init__(self, key, reason):
        super().__init__(f'{key}: {reason}')
        self.key, self.reason = key, reason
