"""Models: native loading, quantised bases, adapters, and the loss."""
