"""The results of all runs as a Markdown table and as JSON."""

from dataclasses import asdict
from typing import Any

from common.markdown_table import markdown_table

from .run_case import Result

# Number of steps whose losses are compared; later losses diverge because of rounding.
COMPARED_STEPS = 5
COLUMNS = [
    'method',
    'strategy',
    'devices',
    'layers',
    'tokens/s per device',
    'relative to one device',
    'peak GiB',
    'first loss',
    f'largest difference of the first {COMPARED_STEPS} losses, norms',
]


def reference(result: Result, results: list[Result]) -> Result | None:
    """Return the run to compare `result` with: the first one of the same method and number of layers."""
    same_method = (r for r in results if not r.problem and r.case.method == result.case.method)
    return next((r for r in same_method if r.case.layers == result.case.layers), None)


def largest_difference(values: tuple[float, ...], reference_values: tuple[float, ...]) -> float:
    """Return the largest relative difference of the first values."""
    pairs = list(zip(values[:COMPARED_STEPS], reference_values[:COMPARED_STEPS], strict=True))
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)


def comparison(result: Result, results: list[Result]) -> dict[str, Any]:
    """Return the values of a row of the table, which are also the entry in the JSON file."""
    base = reference(result, results)
    row = {k: v for k, v in asdict(result).items() if k != 'case'} | asdict(result.case)
    if result.problem or base is None:
        return row
    if base.case.devices == 1:
        row['efficiency'] = result.speed / base.speed
    row['loss_difference'] = largest_difference(result.losses, base.losses)
    row['norm_difference'] = largest_difference(result.norms, base.norms)
    return row


def results_table(results: list[Result]) -> str:
    """Return the Markdown table."""
    rows = []
    for row in (comparison(result, results) for result in results):
        cells = [row['method'], row['strategy'], str(row['devices']), str(row['layers'])]
        if row['problem']:
            rows.append([*cells, f'**{row["problem"]}**'])
            continue
        relative_speed = f'{row["efficiency"]:.0%}' if 'efficiency' in row else '-'
        cells += [f'{row["speed"]:,.0f}', relative_speed, f'{row["memory"]:.1f}', f'{row["losses"][0]:.4f}']
        rows.append([*cells, f'{row["loss_difference"]:.1e}, {row["norm_difference"]:.1e}'])
    return markdown_table(COLUMNS, rows)
