#!/usr/bin/env bash
# Run the tests that need a CUDA GPU and write the results to docs/en/verified.md. For a machine with a CUDA GPU.
# Prints the output of pytest, with the reason of each skip. Arguments are passed to pytest; the page is then unchanged.
#
#   bash tools/gpu_tests.sh
#   bash tools/gpu_tests.sh tests/ops/test_float8_linear_gpu.py -x
#
# The interpreter is XTUNE_PYTHON, else .venv, else python3. It needs the packages of requirements/runtime.txt and pytest;
# with pytest-xdist, tests run in parallel. No package is installed. SmolLM2-135M-Instruct is fetched if it is missing.
# The log and the JUnit file are written to GPU_TESTS_OUT (default: work_dirs/gpu_tests). In a copy without git history,
# set XTUNE_COMMIT to the commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${XTUNE_PYTHON:-}"
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=$PWD/.venv/bin/python; } || python=$(command -v python3)
out="${GPU_TESTS_OUT:-work_dirs/gpu_tests}"
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Compilation takes most of the time, so the processes share the compile cache.
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-${TMPDIR:-/tmp}/xtune-gpu-tests-$(id -u)/inductor}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/xtune-gpu-tests-$(id -u)/triton}"
export TORCHINDUCTOR_COMPILE_THREADS="${TORCHINDUCTOR_COMPILE_THREADS:-2}"
model="${XTUNE_TEST_MODEL:-${XTUNE_CACHE:-$HOME/.cache/xtune}/models/SmolLM2-135M-Instruct}"
[ -f "$model/config.json" ] || "$python" tools/get_smollm2.py "$model"
export XTUNE_TEST_MODEL="$model"

# One process per 12 GiB of free memory on the first GPU and per two cores, at most twelve.
workers=$("$python" - <<'PY'
import importlib.util
import os

import torch

if not torch.cuda.is_available():
    raise SystemExit('error: torch sees no CUDA GPU: run `xtune env`, then `nvidia-smi`')
free = torch.cuda.mem_get_info(0)[0] // (12 * 2**30)
cores = len(os.sched_getaffinity(0)) // 2
print(max(min(free, cores, 12), 1) if importlib.util.find_spec('xdist') else 0)
PY
)
options=(-m gpu -rs --durations=15 --log-level WARNING --junitxml "$out/junit.xml")
[ "$workers" -lt 2 ] || options+=(-n "$workers" --dist loadgroup)
! "$python" -c 'import pytest_timeout' 2>/dev/null || options+=(--timeout 300)
mapfile -t files < <(grep -rlE 'mark\.gpu' tests --include='test_*.py' | sort)
case "$*" in *tests/*) files=() ;; esac
code=0
"$python" -m pytest "${options[@]}" "$@" "${files[@]}" | tee -i "$out/gpu_tests.log" || code=${PIPESTATUS[0]}
# 0: all passed; 1: some failed; other codes: pytest did not finish.
[ $# -gt 0 ] || [ "$code" -gt 1 ] || "$python" tools/gpu_test_report.py "$out/junit.xml"
exit "$code"
