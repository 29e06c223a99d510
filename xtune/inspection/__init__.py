"""Inspect data sets and the environment; the modules are imported by the commands that need them."""
