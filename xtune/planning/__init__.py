"""Estimate the memory and speed of a run before its weights are loaded."""
