"""Speed and memory features, one a file; `engine/optimizations.py` applies them in order."""
