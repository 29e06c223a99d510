"""Print training sequences and statistics to the terminal; control characters in the data are escaped."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console
from rich.text import Text

from ..utils.visible import visible
from .statistics import Bin
from .view import Segment, Sequence, Token

LEGEND = (
    'green: trained, in ⟦ ⟧; plain: context; bold: special tokens. '
    r'Hidden characters are escaped, such as \x1b or \u202e.'
)
_BAR = 40  # columns


def console() -> Console:
    """Return a console that does not interpret markup, emoji codes or numbers in a text."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(lines: Iterable[tuple[str, str]]) -> None:
    """Print labeled lines."""
    for label, text in lines:
        print(f'{label:<11}{visible(text)}', flush=True)


def print_sequence(target: Console, sequence: Sequence, with_ids: bool) -> None:
    """Print a sequence: a rule, and each segment with its place."""
    target.rule(f'sequence {sequence.number}: {sequence.tokens:,} tokens, {sequence.trained:,} trained')
    for segment in sequence.segments:
        target.print(Text(f'[{visible(segment.title)}]', style='dim'))
        target.print(colored_text(segment, with_ids))


def colored_text(segment: Segment, with_ids: bool = False) -> Text:
    """Return a segment as text: trained tokens green and in brackets, optionally with the id after each token."""
    text = Text()
    for trained, tokens in groupby(segment.tokens, key=lambda token: token.trained):
        color = 'green' if trained else ''
        text.append('⟦' if trained else '', style=color)
        for token in tokens:
            _append(text, token, color, with_ids)
        text.append('⟧' if trained else '', style=color)
    return text


def _append(text: Text, token: Token, color: str, with_id: bool) -> None:
    shown = visible(f'‹{token.text}›' if token.kind == 'part' else token.text, keep='\n\t')
    style = f'bold {color}' if token.kind == 'special' else color
    if not with_id:
        text.append(shown, style=style)
        return
    text.append(shown.replace('\n', '↵'), style=style)
    text.append(f'‹{" ".join(map(str, token.ids))}›', style='dim')
    text.append('\n' * shown.count('\n'))


def histogram_lines(bins: list[Bin]) -> Iterator[tuple[str, str]]:
    """Yield one labeled line per bin, with a bar proportional to its count."""
    max_count = max(bin_.count for bin_ in bins)
    name_width, count_width = max(len(bin_.name) for bin_ in bins), len(f'{max_count:,}')
    for index, bin_ in enumerate(bins):
        bar = '█' * round(_BAR * bin_.count / max_count) or '▏' * bool(bin_.count)
        line = f'{bin_.name:>{name_width}}  {bin_.count:>{count_width},} {bar}'
        yield '' if index else 'tokens', line.rstrip()
