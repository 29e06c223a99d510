#!/usr/bin/env bash
# Run the tests that need a CUDA GPU, list the reason of each skip, and write what was found to docs/en/verified.md.
# Arguments go to pytest; with arguments the page stays as it is:
#   bash tools/gpu_tests.sh
#   bash tools/gpu_tests.sh tests/ops/test_float8_linear_gpu.py -x
# The Python is XTUNE_PYTHON, else that of .venv, else python3. It needs the packages of requirements/runtime.txt and
# pytest; with pytest-xdist several tests run at a time. Nothing is installed or downloaded. The log and the JUnit file go
# to GPU_TESTS_OUT (default: work_dirs/gpu_tests). XTUNE_COMMIT names the commit of a copy without its history.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${XTUNE_PYTHON:-}"
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=$PWD/.venv/bin/python; } || python=$(command -v python3)
out="${GPU_TESTS_OUT:-work_dirs/gpu_tests}"
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Compiling takes most of the time: what one process has compiled, the others read.
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-${TMPDIR:-/tmp}/xtune-gpu-tests-$(id -u)/inductor}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/xtune-gpu-tests-$(id -u)/triton}"
export TORCHINDUCTOR_COMPILE_THREADS="${TORCHINDUCTOR_COMPILE_THREADS:-2}"
model="${XTUNE_TEST_MODEL:-${XTUNE_CACHE:-$HOME/.cache/xtune}/models/SmolLM2-135M-Instruct}"
[ -f "$model/config.json" ] || "$python" tools/get_smollm2.py "$model"
export XTUNE_TEST_MODEL="$model"

# A process for each 12 GiB that are free on the first GPU and each two cores, at most twelve.
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
# 0: all passed; 1: some failed. Others are of runs that did not come to their end.
[ $# -gt 0 ] || [ "$code" -gt 1 ] || "$python" tools/verified.py "$out/junit.xml"
exit "$code"
