"""The sections of a config that the data of a run depend on."""

from dataclasses import dataclass

from ..config.sections import Data, Scalars, Schedule, Source


@dataclass(frozen=True, kw_only=True)
class DataSections:
    """Sections of a config.

    Attributes:
        values: Single values, such as `max_length`, `pack` and `seed`.
        data: Reading and checking of rows.
        schedule: Batch size, gradient accumulation and number of steps.
        train: Sources of training data.
        val: Sources of validation data, or the share or number of training rows to hold out, or None.
    """

    values: Scalars
    data: Data
    schedule: Schedule
    train: tuple[Source, ...]
    val: tuple[Source, ...] | float | int | None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of training and validation data."""
        return self.train + (self.val if isinstance(self.val, tuple) else ())
