"""Loading checkpoints: check the folder, read the config, load and verify the weights."""
