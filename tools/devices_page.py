"""Write the tables of docs/en/devices.md and docs/zh/devices.md between their marks; with --check only compare.

They come from xtune/parallel/compatibility.py (what goes together) and tools/plan_memory.py (memory of a 70B model).
"""

import sys
from pathlib import Path

import plan_memory

from xtune.parallel.compatibility import METHODS, REFUSED, STRATEGIES

PAGES = [Path(__file__).resolve().parents[1] / 'docs' / language / 'devices.md' for language in ('en', 'zh')]


def compatibility() -> str:
    """Return the table of methods and strategies, and below it why some do not go together."""
    spread = [name for name in STRATEGIES if name != 'one_device']
    text = '| | ' + ' | '.join(f'`{name}`' for name in spread) + ' |\n' + '|---' * (len(spread) + 1) + '|\n'
    reasons: dict[str, list[tuple[str, str]]] = {}
    for method in METHODS:
        cells = []
        for strategy in spread:
            reason = REFUSED.get((method, strategy))
            cells.append('no' if reason else 'yes')
            if reason:
                reasons.setdefault(reason, []).append((method, strategy))
        text += f'| `{method}` | {" | ".join(cells)} |\n'
    lines = []
    for reason, pairs in reasons.items():
        methods = ', '.join(dict.fromkeys(f'`{method}`' for method, _ in pairs))
        strategies = ', '.join(dict.fromkeys(f'`{strategy}`' for _, strategy in pairs))
        lines.append(f'- {methods}, {strategies}: {reason}.\n')
    return text + '\n' + ''.join(lines)


def with_tables(text: str) -> str:
    """Return a page with its tables replaced.

    Raises:
        ValueError: It has no marks for one of them.
    """
    for name, made in (('compatibility', compatibility()), ('memory', plan_memory.table())):
        start, end = f'<!-- {name}: tools/devices_page.py -->', f'<!-- end of {name} -->'
        head, found, rest = text.partition(start)
        _, ended, tail = rest.partition(end)
        if not found or not ended:
            raise ValueError(f'the page has no lines `{start}` and `{end}`')
        text = f'{head}{start}\n\n{made}\n{end}{tail}'
    return text


if __name__ == '__main__':
    stale = [
        page for page in PAGES if page.read_text(encoding='utf-8') != with_tables(page.read_text(encoding='utf-8'))
    ]
    if '--check' in sys.argv:
        sys.exit(bool(stale))
    for page in stale:
        page.write_text(with_tables(page.read_text(encoding='utf-8')), encoding='utf-8')
