"""Report on the rows of a data set: counts by reason, first examples, and the limits at which a run stops."""

from collections import Counter
from dataclasses import dataclass, field

from ..errors import DataError
from ..messages import RowError
from .unused_data import UnusedData

EXAMPLES = 5  # unusable rows shown
MAX_LENGTHS = 10_000  # lengths kept of rows that are too long


def counted(count: int, noun: str, rest: str = '') -> str:
    """Return '1 row' or '2 rows', followed by `rest`."""
    return f'{count:,} {noun}{"" if count == 1 else "s"} {rest}'.rstrip()


@dataclass
class Report:
    """Counts over one data set.

    Attributes:
        rows: Rows read.
        bad: Unusable rows, by reason.
        examples: Place and error message of the first unusable rows.
        length_changes: Rows changed or dropped for their length, by what was done.
        samples: Samples encoded from the rows.
        tokens: Tokens of these samples.
        trained_tokens: Tokens with a loss.
        too_long: Tokens of the first rows that were dropped or could not be used for their length.
        remarks: Other rows worth knowing about, by remark.
        first_places: For each remark, the place of the first such row.
        hints: Suspected problems of the data set as a whole.
        format: Name of the map function.
        template: The chat template, if it is not that of the run.
        unused: Data that are not used.
    """

    rows: int = 0
    bad: Counter = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    length_changes: Counter = field(default_factory=Counter)
    samples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    too_long: list[int] = field(default_factory=list)
    remarks: Counter = field(default_factory=Counter)
    first_places: dict[str, str] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    format: str = ''
    template: str = ''
    unused: UnusedData = field(default_factory=UnusedData)

    def add(self, other: 'Report') -> None:
        """Add the counts of a later part of the same data set."""
        self.rows += other.rows
        self.samples += other.samples
        self.tokens += other.tokens
        self.trained_tokens += other.trained_tokens
        self.bad.update(other.bad)
        self.length_changes.update(other.length_changes)
        self.examples = (self.examples + other.examples)[:EXAMPLES]
        self.too_long = (self.too_long + other.too_long)[:MAX_LENGTHS]
        self.remarks.update(other.remarks)
        self.first_places = {**other.first_places, **self.first_places}
        self.unused.add(other.unused)

    @property
    def bad_rows(self) -> int:
        """Number of rows that cannot be used."""
        return sum(self.bad.values())

    def lines(self) -> list[str]:
        """Return the lines about unusable rows, changed rows and remarks; empty if there are none."""
        lines = [f'{counted(count, "row")} skipped: {reason}' for reason, count in self.bad.most_common()]
        lines += [f'  {place}: {error}' for place, error in self.examples]
        return lines + self.length_lines() + self.remark_lines()

    def length_lines(self) -> list[str]:
        """Return a line for each change that was made to rows for their length."""
        # A change begins with the noun to count, such as 'row truncated: end cut'.
        return [counted(count, *change.split(' ', 1)) for change, count in self.length_changes.most_common() if count]

    def remark_lines(self) -> list[str]:
        """Return a line for each remark, and the hints."""
        lines = []
        for remark, count in self.remarks.most_common():
            first = f'; first: {self.first_places[remark]}' if count < self.rows else ''
            lines.append(f'{counted(count, "row")} {remark}{first}')
        return lines + self.hints

    def add_bad_row(self, place: str, error: RowError) -> None:
        """Count a row that cannot be used."""
        self.bad[error.reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((place, str(error)))

    def add_remark(self, remark: str, place: str) -> None:
        """Count a row worth knowing about."""
        self.remarks[remark] += 1
        self.first_places.setdefault(remark, place)

    def length_advice(self) -> str:
        """Return which `max_length` would fit the rows that are too long; empty if there are none."""
        if not self.too_long:
            return ''
        lengths = sorted(self.too_long)
        percentile, longest = lengths[-(-len(lengths) * 99 // 100) - 1], lengths[-1]
        fits_99_percent = f'max_length={percentile} (99 % of them; all: {longest})'
        advice = f'max_length={longest}' if percentile == longest else fits_99_percent
        drop = "; overlong='drop' drops them without counting them as bad" if self.bad else ''
        return f'{advice} fits the rows that are too long{drop}'

    def require_usable(self, origin: str, max_bad_rows: float) -> None:
        """Check that there are rows, and that enough of them can be used.

        Raises:
            DataError: There are no rows, none is usable, or the share of unusable rows is above `max_bad_rows`.
        """
        if not self.rows:
            raise DataError(f'{origin} has no rows')
        details = '\n'.join(self.lines())
        if not self.samples and not self.bad_rows:
            advice = self.length_advice()
            raise DataError(
                f'all {self.rows:,} rows of {origin} are dropped because of their length: raise max_length\n{advice}'
            )
        advice = f'\n{self.length_advice()}'.rstrip()
        if not self.samples:
            raise DataError(f'none of the {self.rows:,} rows of {origin} can be used:\n{details}{advice}')
        if self.bad_rows > max_bad_rows * self.rows:
            raise DataError(
                f'{self.bad_rows:,} of the {self.rows:,} rows of {origin} cannot be used '
                f'({self.bad_rows / self.rows:.1%}, allowed: data.max_bad_rows={max_bad_rows:.1%}):\n{details}\n'
                f'Fix or remove them, or raise data.max_bad_rows.{advice}'
            )

    def require_all_used(self, origin: str) -> None:
        """Check that all data are used.

        Raises:
            DataError: Some columns, keys, turns, files or the like are not used.
        """
        if lines := self.unused.lines():
            details = '\n'.join(f'  {line}' for line in lines)
            raise DataError(
                f'data.strict=True, but {counted(len(lines), "part")} of {origin} would not be used:\n{details}\n'
                'Remove them, write a map function that uses them, name columns and keys in train_dataset.ignore, or '
                'set data.strict=False.'
            )

    def to_json(self) -> dict:
        """Return a form for `json.dump`."""
        return {**vars(self), 'unused': self.unused.to_json()}

    @classmethod
    def from_json(cls, values: dict) -> 'Report':
        """Return the report that `to_json` wrote."""
        counters = {name: Counter(values[name]) for name in ('bad', 'length_changes', 'remarks')}
        values = {**values, **counters, 'unused': UnusedData.from_json(values['unused'])}
        return cls(**{**values, 'examples': [tuple(pair) for pair in values['examples']]})
