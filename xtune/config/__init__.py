"""Configs: find, load, check, wire, and write as one file. Nothing here imports torch by itself."""
