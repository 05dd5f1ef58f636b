# Sourced by demo.sh and test.sh: makes the environment $VENV (default .venv) and installs what it is given, again after each
# change of pyproject.toml.
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
if [ ! -x "$VENV/bin/python" ]; then
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 12))' ||
        { echo "error: DiffDis needs Python 3.10 or 3.11; $PYTHON is $("$PYTHON" -V) (PYTHON=... picks another)" >&2; exit 1; }
    echo "making the environment $VENV"
    "$PYTHON" -m venv "$VENV"
fi
stamp="$VENV/.installed $(echo "$1" | tr -c 'a-zA-Z0-9\n' _) $(cksum < pyproject.toml | tr ' ' _)"
if [ ! -e "$stamp" ]; then
    echo "installing $1 (a few minutes the first time)"
    # --no-compile: Python compiles what it imports; pip would compile all of MindSpore and torch, which takes a minute
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -e "$1"
    touch "$stamp"
fi
