"""Inspect data and the environment: `log-dataset`, `check-custom-dataset`, `list-dataset-format` and `env`.

Nothing is imported here, so that formats and versions are listed without loading torch.
"""
