#!/usr/bin/env bash
# Make or reuse .venv, install what the tests need (where it can, a browser too), and run the whole default suite.
# Arguments go to pytest:
#   bash tools/test.sh tests/data -x
set -euo pipefail
# shellcheck source=tools/common.sh
. "$(dirname "$0")/common.sh"
make_venv test
get_model
browser
export XTUNE_TEST_MODEL="$MODEL_DIR"
exec python -m pytest "$@"
