"""What happened to the rows: counts by reason, the first examples, and when it is too much."""

from collections import Counter
from dataclasses import dataclass, field

from ..errors import DataError
from .unused import Unused

EXAMPLES = 5


def counted(count: int, noun: str, rest: str = '') -> str:
    """Return '1 row' or '2 rows', and what else there is to say of them."""
    return f'{count:,} {noun}{"" if count == 1 else "s"} {rest}'.rstrip()


@dataclass
class Report:
    """Counts over one data set. `examples` are (place, reason and detail) of the first unusable rows, `format` is the
    map function."""

    rows: int = 0
    bad: Counter = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)
    samples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    format: str = ''
    unused: Unused = field(default_factory=Unused)

    def add(self, other: 'Report') -> None:
        """Add the counts of a later part of the same data set."""
        self.rows += other.rows
        self.samples += other.samples
        self.tokens += other.tokens
        self.trained_tokens += other.trained_tokens
        self.bad.update(other.bad)
        self.notes.update(other.notes)
        self.examples = (self.examples + other.examples)[:EXAMPLES]
        self.unused.add(other.unused)

    @property
    def bad_rows(self) -> int:
        """How many rows could not be used."""
        return sum(self.bad.values())

    def lines(self) -> list[str]:
        """Return what a person should read about unusable and shortened rows; nothing if all is well."""
        lines = [f'{counted(count, "row")} skipped: {reason}' for reason, count in self.bad.most_common()]
        lines += [f'  {place}: {what}' for place, what in self.examples]
        return lines + [counted(count, *note.split(' ', 1)) for note, count in self.notes.most_common() if count]

    def require_usable(self, origin: str, max_bad_rows: float) -> None:
        """Stop if too many rows are unusable.

        Raises:
            DataError: There is no row at all, none is usable, or the share of unusable rows is above `max_bad_rows`.
        """
        if not self.rows:
            raise DataError(f'{origin} has no rows')
        details = '\n'.join(self.lines())
        if not self.samples and not self.bad_rows:
            raise DataError(f'all {self.rows:,} rows of {origin} are dropped for their length: raise max_length')
        if not self.samples:
            raise DataError(f'none of the {self.rows:,} rows of {origin} can be used:\n{details}')
        if self.bad_rows > max_bad_rows * self.rows:
            raise DataError(
                f'{self.bad_rows:,} of the {self.rows:,} rows of {origin} cannot be used '
                f'({self.bad_rows / self.rows:.1%}, allowed: data.max_bad_rows={max_bad_rows:.1%}):\n{details}\n'
                'Mend or remove them, or raise data.max_bad_rows.'
            )

    def require_all_used(self, origin: str) -> None:
        """Stop if something of the data is not used.

        Raises:
            DataError: Columns, keys, turns, files or the like are not used.
        """
        if lines := self.unused.lines():
            found = '\n'.join(f'  {line}' for line in lines)
            raise DataError(
                f'data.strict=True, and {counted(len(lines), "thing")} of {origin} would not be used:\n{found}\n'
                'Remove them, write a map function that uses them, name columns and keys in train_dataset.ignore, or '
                'set data.strict=False.'
            )

    def to_json(self) -> dict:
        """Return a form for `json.dump`."""
        return {**vars(self), 'bad': dict(self.bad), 'notes': dict(self.notes), 'unused': self.unused.to_json()}

    @classmethod
    def from_json(cls, values: dict) -> 'Report':
        """Return the report that `to_json` wrote."""
        counters = {name: Counter(values[name]) for name in ('bad', 'notes')}
        values = {**values, **counters, 'unused': Unused.from_json(values['unused'])}
        return cls(**{**values, 'examples': [tuple(pair) for pair in values['examples']]})
