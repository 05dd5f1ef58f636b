"""The end of every command in tools/. A user's mistake gives one line on stderr and exit code 1, no stack trace."""

import sys

from diffdis_ms.errors import BadImage, BadSample, ConfigError


def run(main):
    """Call `main()` and exit with its return value (None: 0).

    ConfigError, BadImage, BadSample and OSError are printed as `error: <one line>` with exit code 1, and Ctrl-C as
    `interrupted` with code 130. Any other exception is a bug and keeps its stack trace.
    """
    try:
        sys.exit(main())
    except (ConfigError, BadImage, BadSample) as e:
        _fail(str(e))
    except OSError as e:
        _fail(f'{e.filename}: {e.strerror}' if e.filename is not None and e.strerror else str(e) or type(e).__name__)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)


def _fail(message):
    print('error:', ' '.join(message.split()), file=sys.stderr)
    sys.exit(1)
