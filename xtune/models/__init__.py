"""Models: loading, verification, and the remote-code checkpoints of 2023."""
