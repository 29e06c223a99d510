#!/usr/bin/env bash
# Create or reuse .venv, install the requirements of the tests (and a browser, if possible), and run the default suite.
# `unit` leaves out the integration tests. Other arguments are passed to pytest. Runs on a CPU; prints its output.
#
#   bash tools/test.sh
#   bash tools/test.sh unit
#   bash tools/test.sh tests/data -x
set -euo pipefail
# shellcheck source=tools/setup_env.sh
. "$(dirname "$0")/setup_env.sh"
make_venv test
get_model
install_browser
export XTUNE_TEST_MODEL="$MODEL_DIR"
# One process per core with one thread each: the models of the tests are too small for more threads.
workers=$(nproc)
[ "$workers" -le 8 ] || workers=8
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ "${1:-}" = unit ]; then
    set -- -m 'not integration and not slow and not gpu' "${@:2}"
fi
exec python -m pytest -n "$workers" --dist worksteal "$@"
