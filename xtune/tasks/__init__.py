"""Tasks: what the model is trained to do. A task maps a micro-batch to a summed loss."""
