"""The parts of tools/benchmark_peers.py: cases, inputs, one training script per contender, the report."""
