"""Chat: generation with the template and stop tokens of the model's own folder."""
