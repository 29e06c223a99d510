"""Parts of tools/benchmark_devices.py."""
