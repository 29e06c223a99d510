"""The figures of all runs as a Markdown table and as JSON."""

from dataclasses import asdict
from typing import Any

from common.tables import markdown

from .runs import Result

# Steps whose losses are compared; later ones part by rounding.
FIRST = 5
COLUMNS = [
    'method',
    'strategy',
    'devices',
    'layers',
    'tokens/s per device',
    'against one device',
    'peak GiB',
    'first loss',
    f'largest difference of the first {FIRST} losses, norms',
]


def reference(result: Result, results: list[Result]) -> Result | None:
    """Return the run of the same method and depth that `result` is compared with: the first one, on one device."""
    same = (r for r in results if not r.problem and r.case.method == result.case.method)
    return next((r for r in same if r.case.layers == result.case.layers), None)


def difference(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """Return the largest relative difference of the first values."""
    pairs = list(zip(ours[:FIRST], theirs[:FIRST], strict=True))
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)


def compared(result: Result, results: list[Result]) -> dict[str, Any]:
    """Return what stands in a row of the table and in the JSON."""
    base = reference(result, results)
    row = {k: v for k, v in asdict(result).items() if k != 'case'} | asdict(result.case)
    if result.problem or base is None:
        return row
    if base.case.devices == 1:
        row['efficiency'] = result.speed / base.speed
    row['loss_difference'] = difference(result.losses, base.losses)
    row['norm_difference'] = difference(result.norms, base.norms)
    return row


def table(results: list[Result]) -> str:
    """Return the Markdown table."""
    rows = []
    for row in (compared(result, results) for result in results):
        cells = [row['method'], row['strategy'], str(row['devices']), str(row['layers'])]
        if row['problem']:
            rows.append([*cells, f'**{row["problem"]}**'])
            continue
        share = f'{row["efficiency"]:.0%}' if 'efficiency' in row else '-'
        cells += [f'{row["speed"]:,.0f}', share, f'{row["memory"]:.1f}', f'{row["losses"][0]:.4f}']
        rows.append([*cells, f'{row["loss_difference"]:.1e}, {row["norm_difference"]:.1e}'])
    return markdown(COLUMNS, rows)
