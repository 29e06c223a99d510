"""Print training sequences and statistics in the terminal. Escape sequences in the data are made visible."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console
from rich.text import Text

from ..utils.visible import visible
from .statistics import Bin
from .view import SampleView, Sequence, Token

LEGEND = (
    'green: trained; plain: context; bold: special tokens. Without colors, trained text is between ⟦ and ⟧. '
    r'Hidden characters are shown as \x1b or \u202e.'
)
_BAR_WIDTH = 40  # characters


def console() -> Console:
    """Return a console that prints text without interpreting markup."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(lines: Iterable[tuple[str, str]]) -> None:
    """Print labelled lines."""
    for label, text in lines:
        print(f'{label:<11}{visible(text)}', flush=True)


def print_sequence(target: Console, sequence: Sequence, with_ids: bool) -> None:
    """Print a sequence: a rule, and each sample with its place."""
    target.rule(f'sequence {sequence.number}: {sequence.tokens:,} tokens, {sequence.trained:,} trained')
    for sample in sequence.samples:
        target.print(Text(f'[{visible(sample.title)}]', style='dim'))
        target.print(styled(sample, with_ids))


def styled(sample: SampleView, with_ids: bool = False) -> Text:
    """Return a sample as text: trained tokens green and in brackets, with token ids if `with_ids`."""
    text = Text()
    for trained, tokens in groupby(sample.tokens, key=lambda token: token.trained):
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
    """Yield one labelled line for each bin, with a bar proportional to its count."""
    largest = max(item.count for item in bins)
    name_width, count_width = max(len(item.name) for item in bins), len(f'{largest:,}')
    for index, item in enumerate(bins):
        bar = '█' * round(_BAR_WIDTH * item.count / largest) or '▏' * bool(item.count)
        yield '' if index else 'tokens', f'{item.name:>{name_width}}  {item.count:>{count_width},} {bar}'.rstrip()
