#!/usr/bin/env bash
# The whole job on the demo set: install, draw the data, train V, T and DiffDis, classify, retrieve, generate, report.
#   bash tools/demo.sh          some twenty minutes on two cores
#   bash tools/demo.sh --fast   the same path in under three minutes, to see that everything works
# VENV=DIR puts the environment elsewhere (default: .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/venv.sh '.[demo]'
exec "$VENV/bin/python" tools/demo.py "$@"
