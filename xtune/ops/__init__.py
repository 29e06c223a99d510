"""Numerical operations, one a file: kernels and autograd functions without knowledge of a run."""
