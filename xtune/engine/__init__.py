"""The engine: mmengine's FlexibleRunner with a loop, strategies, checkpoint files and hooks of our own."""
