"""Inspect data before training: `log-dataset` (`log`), `check-custom-dataset` (`check`) and `list-dataset-format`."""
