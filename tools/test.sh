#!/usr/bin/env bash
# Install the test side and run every test, in two processes; arguments go to pytest:
#   bash tools/test.sh -m 'not slow' tests/models
#   bash tools/test.sh -n 0 --pdb tests/models       in one process
# VENV=DIR puts the environment elsewhere (default: .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/venv.sh '.[demo,parity,dev]'
# without their dependencies: torchvision, which both name, would replace torch (CONTRIBUTING.md)
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
    open_clip_torch==3.3.0 torch-fidelity==0.4.0
"$VENV/bin/python" -m ruff check .
exec "$VENV/bin/python" -m pytest -n 2 --dist loadgroup --no-loadscope-reorder "$@"
