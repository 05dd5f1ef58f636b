#!/usr/bin/env bash
# Install the test side and run every test; arguments go to pytest:
#   bash tools/test.sh -m 'not slow' tests/models
# VENV=DIR puts the environment elsewhere (default: .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/venv.sh '.[demo,parity,dev]'
"$VENV/bin/python" -m ruff check .
exec "$VENV/bin/python" -m pytest "$@"
