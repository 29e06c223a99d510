"""Data that are not used: columns, keys of messages, turns, reasoning, files; with counts and one example each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class UnusedData:
    """Counts over one data set.

    Attributes:
        rows: Rows with something unused, by its name (such as 'column `url`').
        examples: For each name, the place of the first such row and the unused value.
        read: Names that are read in other rows: a map function may read a column in some rows only.
        unread: Files, sheets and splits that are not read, one sentence each.
    """

    rows: Counter = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)

    def count(self, name: str, place: str, example: str, rows: int = 1) -> None:
        """Count `rows` more rows in which `name` is not used."""
        self.rows[name] += rows
        self.examples.setdefault(name, (place, example))

    def add(self, other: 'UnusedData') -> None:
        """Add the counts of a later part of the same data set."""
        self.rows.update(other.rows)
        self.examples = {**other.examples, **self.examples}
        self.read |= other.read

    def ignore(self, names: Iterable[str]) -> None:
        """Remove what the config allows to be unused; `names` are compared with the first name in backquotes."""
        prefixes = tuple(f'{kind} `{name}`' for name in names for kind in ('column', 'key'))
        self.rows = Counter({name: count for name, count in self.rows.items() if not name.startswith(prefixes)})
        self.unread = [sentence for sentence in self.unread if sentence.split('`')[1] not in names]

    def lines(self) -> list[str]:
        """Return one line for each unused thing; empty if everything is used."""
        lines = []
        for name, rows in self.rows.most_common():
            if name not in self.read:
                place, example = self.examples[name]
                such_as = f', such as {example}' if example else ''
                lines.append(f'not used: {name} ({rows:,} row{"" if rows == 1 else "s"}{such_as}, in {place})')
        return [f'not read: {sentence}' for sentence in self.unread] + lines

    def to_json(self) -> dict:
        """Return a form for `json.dump`, without `unread`: that is not a property of the rows."""
        return dict(rows=dict(self.rows), examples=self.examples, read=sorted(self.read))

    @classmethod
    def from_json(cls, values: dict) -> 'UnusedData':
        """Return the counts that `to_json` wrote."""
        examples = {name: tuple(pair) for name, pair in values['examples'].items()}
        return cls(Counter(values['rows']), examples, set(values['read']))
