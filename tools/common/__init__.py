"""Code that several tools share: configs, synthetic models and data, subprocesses, Markdown tables."""
