"""Training sequences and figures in the terminal. Nothing of the data reaches it that could command it."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console
from rich.text import Text

from ..utils.visible import visible
from .statistics import Bin
from .view import Piece, Sequence, Token

LEGEND = (
    'green: trained; plain: context; bold: control tokens. Without colour, trained text stands between ⟦ and ⟧. '
    r'Hidden characters are shown as \x1b or \u202e.'
)
_BAR = 40  # columns


def console() -> Console:
    """Return a console that interprets nothing in a text."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(lines: Iterable[tuple[str, str]]) -> None:
    """Print labelled lines."""
    for label, text in lines:
        print(f'{label:<11}{visible(text)}', flush=True)


def print_sequence(target: Console, sequence: Sequence, with_ids: bool) -> None:
    """Print a sequence: a rule, and each piece with its place."""
    target.rule(f'sequence {sequence.number}: {sequence.tokens:,} tokens, {sequence.trained:,} trained')
    for piece in sequence.pieces:
        target.print(Text(f'[{visible(piece.title)}]', style='dim'))
        target.print(coloured(piece, with_ids))


def coloured(piece: Piece, with_ids: bool = False) -> Text:
    """Return a piece as text, trained tokens green and bracketed, and behind each token its id if wanted."""
    text = Text()
    for trained, tokens in groupby(piece.tokens, key=lambda token: token.trained):
        colour = 'green' if trained else ''
        text.append('⟦' if trained else '', style=colour)
        for token in tokens:
            _append(text, token, colour, with_ids)
        text.append('⟧' if trained else '', style=colour)
    return text


def _append(text: Text, token: Token, colour: str, with_id: bool) -> None:
    shown = visible(f'‹{token.text}›' if token.kind == 'part' else token.text, keep='\n\t')
    style = f'bold {colour}' if token.kind == 'special' else colour
    if not with_id:
        text.append(shown, style=style)
        return
    text.append(shown.replace('\n', '↵'), style=style)
    text.append(f'‹{" ".join(map(str, token.ids))}›', style='dim')
    text.append('\n' * shown.count('\n'))


def histogram_lines(bins: list[Bin]) -> Iterator[tuple[str, str]]:
    """Yield one labelled line for each bin, with a bar as long as its share of the largest."""
    most = max(one.count for one in bins)
    wide, numbers = max(len(one.name) for one in bins), len(f'{most:,}')
    for index, one in enumerate(bins):
        bar = '█' * round(_BAR * one.count / most) or '▏' * bool(one.count)
        yield '' if index else 'tokens', f'{one.name:>{wide}}  {one.count:>{numbers},} {bar}'.rstrip()
