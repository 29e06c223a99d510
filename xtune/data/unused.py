"""What of the data is not used: columns, keys of messages, turns, thoughts, files; counted, with one example each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Unused:
    """Counts over one data set.

    Attributes:
        rows: Rows in which something is not used, by its name (such as 'column `url`').
        examples: For each name, the place of the first such row and what stands there.
        read: Names that were read in other rows: a map function may read a column in some rows only.
        not_read: Files, sheets and splits that were not read, one sentence each.
    """

    rows: Counter = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    not_read: list[str] = field(default_factory=list)

    def count(self, name: str, place: str, shown: str, rows: int = 1) -> None:
        """Count `rows` more rows in which `name` is not used."""
        self.rows[name] += rows
        self.examples.setdefault(name, (place, shown))

    def add(self, other: 'Unused') -> None:
        """Add the counts of a later part of the same data set."""
        self.rows.update(other.rows)
        self.examples = {**other.examples, **self.examples}
        self.read |= other.read

    def ignore(self, names: Iterable[str]) -> None:
        """Leave out what the config says need not be used, by the first name between backquotes."""
        given = tuple(f'{kind} `{name}`' for name in names for kind in ('column', 'key'))
        self.rows = Counter({name: count for name, count in self.rows.items() if not name.startswith(given)})
        self.not_read = [what for what in self.not_read if what.split('`')[1] not in names]

    def lines(self) -> list[str]:
        """Return one sentence for each thing that is not used; nothing if all is."""
        lines = []
        for name, rows in self.rows.most_common():
            if name not in self.read:
                place, shown = self.examples[name]
                such = f', such as {shown}' if shown else ''
                lines.append(f'not used: {name} ({rows:,} row{"" if rows == 1 else "s"}{such}, in {place})')
        return [f'not read: {what}' for what in self.not_read] + lines

    def to_json(self) -> dict:
        """Return a form for `json.dump`. `not_read` is left out: it is not a property of the rows."""
        return dict(rows=dict(self.rows), examples=self.examples, read=sorted(self.read))

    @classmethod
    def from_json(cls, values: dict) -> 'Unused':
        """Return what `to_json` wrote."""
        examples = {name: tuple(pair) for name, pair in values['examples'].items()}
        return cls(Counter(values['rows']), examples, set(values['read']))
