"""What happened to the rows: counts by reason, the first examples, and when it is too much."""

from collections import Counter
from dataclasses import dataclass, field

from ..errors import DataError
from .unused import Unused

EXAMPLES = 5
LENGTHS = 10_000


def counted(count: int, noun: str, rest: str = '') -> str:
    """Return '1 row' or '2 rows', and what else there is to say of them."""
    return f'{count:,} {noun}{"" if count == 1 else "s"} {rest}'.rstrip()


@dataclass
class Report:
    """Counts over one data set.

    Attributes:
        examples: Place, and reason and detail, of the first unusable rows.
        notes: Rows changed or left out for their length, by what was done.
        too_long: Tokens of the first rows that do not fit into `max_length` at all.
        remarks: Other rows that a person should know of, by what is so with them; `first` has the place of the first.
        hints: What seems to be wrong with the data as a whole.
        format: Name of the map function.
        template: The template, if it is not that of the run.
    """

    rows: int = 0
    bad: Counter = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)
    samples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    too_long: list[int] = field(default_factory=list)
    remarks: Counter = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    format: str = ''
    template: str = ''
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
        self.too_long = (self.too_long + other.too_long)[:LENGTHS]
        self.remarks.update(other.remarks)
        self.first = {**other.first, **self.first}
        self.unused.add(other.unused)

    @property
    def bad_rows(self) -> int:
        """How many rows could not be used."""
        return sum(self.bad.values())

    def lines(self) -> list[str]:
        """Return what a person should read about unusable and shortened rows; nothing if all is well."""
        lines = [f'{counted(count, "row")} skipped: {reason}' for reason, count in self.bad.most_common()]
        lines += [f'  {place}: {what}' for place, what in self.examples]
        lines += [counted(count, *note.split(' ', 1)) for note, count in self.notes.most_common() if count]
        return lines + self.remark_lines()

    def remark(self, what: str, place: str) -> None:
        """Count a row that a person should know of."""
        self.remarks[what] += 1
        self.first.setdefault(what, place)

    def remark_lines(self) -> list[str]:
        """Return a line for each kind of row that a person should know of, and the hints."""
        lines = []
        for what, count in self.remarks.most_common():
            place = f'; the first: {self.first[what]}' if count < self.rows else ''
            lines.append(f'{counted(count, "row")} {what}{place}')
        return lines + self.hints

    def length_advice(self) -> str:
        """Return what to set so that rows that are too long can be used; empty if there are none."""
        if not self.too_long:
            return ''
        lengths = sorted(self.too_long)
        most, longest = lengths[-(-len(lengths) * 99 // 100) - 1], lengths[-1]
        drop = "; overlong='drop' leaves them out without counting them as bad"
        enough = f'max_length={longest}' if most == longest else f'max_length={most} (99 % of them; all: {longest})'
        return f'{enough} holds the rows that are too long{drop if self.bad else ""}'

    def require_usable(self, origin: str, max_bad_rows: float) -> None:
        """Stop if too many rows are unusable.

        Raises:
            DataError: There is no row at all, none is usable, or the share of unusable rows is above `max_bad_rows`.
        """
        if not self.rows:
            raise DataError(f'{origin} has no rows')
        details = '\n'.join(self.lines())
        if not self.samples and not self.bad_rows:
            advice = self.length_advice()
            raise DataError(
                f'all {self.rows:,} rows of {origin} are dropped for their length: raise max_length\n{advice}'
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
        return {**vars(self), 'unused': self.unused.to_json()}

    @classmethod
    def from_json(cls, values: dict) -> 'Report':
        """Return the report that `to_json` wrote."""
        counters = {name: Counter(values[name]) for name in ('bad', 'notes', 'remarks')}
        values = {**values, **counters, 'unused': Unused.from_json(values['unused'])}
        return cls(**{**values, 'examples': [tuple(pair) for pair in values['examples']]})
