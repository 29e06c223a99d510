"""Models: loading, verification, and 2023 remote-code checkpoints."""
