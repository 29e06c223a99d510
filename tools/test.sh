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
# One process a core, each with one thread: what the tests train is too small for more.
workers=$(nproc)
[ "$workers" -le 8 ] || workers=8
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n "$workers" --dist worksteal "$@"
