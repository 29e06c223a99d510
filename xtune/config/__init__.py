"""Configs: find or compose, load, check, wire, and write as one file. Loading imports no torch."""
