"""Capture of decoder layers as CUDA graphs in launch-bound steps."""
