#!/usr/bin/env bash
# One of the tools on several devices of one machine or many, by msrun:
#   bash tools/launch.sh 8 tools/train.py --config ascend_configs/cc3m_diffdis_8p.yaml
# bash tools/launch.sh --help explains the rest. VENV=DIR picks the environment (default: .venv where it exists, else the PATH's python).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${VENV:-$here/.venv}/bin/python
[ -x "$PYTHON" ] || PYTHON=$(command -v python3 || command -v python)
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" "$here/tools/launch.py" "$@"
