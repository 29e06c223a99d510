"""Parts of tools/benchmark_peers.py."""
