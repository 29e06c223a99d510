"""Inspect data before training: `xtune log-dataset` (`log`), `check-custom-dataset` (`check`), `list-dataset-format`."""
