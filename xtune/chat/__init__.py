"""Chat: generate with the chat template and stop tokens of the model folder."""
