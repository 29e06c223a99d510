"""Markdown tables."""


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; short rows are padded with empty cells."""
    lines = [columns, ['---'] * len(columns), *(row + [''] * (len(columns) - len(row)) for row in rows)]
    text = (' | '.join(cell.replace('|', '/') for cell in line) for line in lines)
    return ''.join(f'| {line} |\n' for line in text)
