"""Loading a base model with an adapter for generation, and generation itself."""
