"""The engine: strategies, optimizer, loop, hooks and checkpoint files of a training run."""
