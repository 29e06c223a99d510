"""Tell from the columns of a row which map function fits."""

from ..errors import DataError


def fitting(row: dict) -> str | None:
    """Return the registered name of the map function for rows like `row`, or None."""
    columns = set(row)
    if 'messages' in columns:
        return 'openai'
    if columns & {'conversations', 'conversation'}:
        return 'sharegpt'
    if {'instruction', 'output'} <= columns:
        return 'alpaca'
    if {'Question', 'Answer'} <= columns:
        return 'medqa'
    if 'text' in columns:
        return 'oasst1' if '### Human:' in str(row['text']) else 'text'
    return None


def require(row: dict, origin: str) -> str:
    """Return `fitting(row)`.

    Raises:
        DataError: No map function fits the columns; the message shows the formats.
    """
    name = fitting(row)
    if name is None:
        raise DataError(
            f'{origin} has the columns {", ".join(map(str, row))}, which no built-in format has:\n'
            '  alpaca    instruction, input (may be missing), output\n'
            '  sharegpt  conversations: [{from, value}, ...]\n'
            '  openai    messages: [{role, content}, ...]\n'
            '  medqa     Question, Answer (other names: train_dataset.map_args.question=... and .answer=...)\n'
            '  text      text\n'
            'Rename the columns, or write a map function and name it as train_dataset.map_fn.'
        )
    return name
