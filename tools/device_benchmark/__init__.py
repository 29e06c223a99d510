"""The parts of tools/benchmark_devices.py: inputs, cases, the report; and memory measured for layers of 70B."""
