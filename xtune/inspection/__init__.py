"""What the model will really see: `xtune log-dataset` (`log`) and `xtune check-custom-dataset` (`check`)."""

from .check import check_dataset
from .log import log_dataset

__all__ = ['check_dataset', 'log_dataset']
