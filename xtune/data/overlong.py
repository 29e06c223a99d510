"""What becomes of a sample of more than `max_length` tokens."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..messages import Conversation, RowError, Tokens

if TYPE_CHECKING:
    from .encode import Encoder, Sample

PROMPT = 'prompt longer than max_length'
DROPPED = 'row dropped: longer than max_length'
LATER_CUT = 'row shortened: later turns cut'
UNTRAINED = 'part left out: nothing of it is trained'


def fitted(encoder: 'Encoder', given: Conversation | Tokens, sample: 'Sample') -> list['Sample']:
    """Return samples of at most `encoder.max_length` tokens, and count in `encoder.notes` what was done.

    Raises:
        RowError: Not even a shortened reply fits.
        DataError: `encoder.overlong` is 'error'.
    """
    length, notes = encoder.max_length, encoder.notes
    if encoder.overlong == 'drop':
        notes[DROPPED] += 1
        encoder.too_long.append(len(sample.ids))
        return []
    if encoder.overlong == 'error':
        raise DataError(
            f'a sample has {len(sample.ids)} tokens, more than max_length={length}; raise max_length or '
            "set overlong to 'truncate', 'split' or 'drop'"
        )
    # Text and given tokens have no turns to keep whole.
    is_text = isinstance(given, Tokens) or given.messages[0]['role'] == 'text'
    before = notes.copy()
    try:
        if encoder.overlong == 'truncate':
            return [_beginning(sample, encoder) if isinstance(given, Tokens) else _truncated(sample, encoder)]
        pieces = list(_cut(sample, encoder) if is_text else _split(given, encoder))
        if not pieces:
            raise RowError(PROMPT, 'in every exchange')
    except RowError:
        encoder.notes = before  # a row that is not used leaves no notes
        encoder.too_long.append(len(sample.ids))
        raise
    if len(pieces) > 1:
        notes['row split'] += 1
    return pieces


def all_fitted(encoder: 'Encoder', parts: list[tuple[Conversation, 'Sample']]) -> list['Sample']:
    """Return the samples of all parts of one conversation, which counts as one row in `encoder.notes`.

    Raises:
        RowError: None of them fits.
        DataError: One is too long and `encoder.overlong` is 'error'.
    """
    before, made, error = encoder.notes.copy(), [], None
    for part, sample in parts:
        try:
            made += encoder._fitted(part, sample)
        except RowError as caught:
            error = caught
    if error is not None and not made:
        encoder.notes = before
        raise error
    done = encoder.notes - before
    if made and (error is not None or done.pop(DROPPED, 0)):
        done[LATER_CUT] = 1
    done.pop(UNTRAINED, None)  # it is trained in another part
    encoder.notes = before + Counter(dict.fromkeys(done, 1))
    return made


def _truncated(sample: 'Sample', encoder: 'Encoder') -> 'Sample':
    """Keep the whole turns that fit; if the first trained reply does not, shorten it and keep its end of turn."""
    length, make = encoder.max_length, type(sample)
    fitting = [i for i, (_, end) in enumerate(sample.turns) if end <= length and any(sample.trained[: i + 1])]
    if fitting:
        encoder.notes[LATER_CUT] += 1
        keep = fitting[-1] + 1
        return make(sample.ids[: sample.turns[keep - 1][1]], sample.turns[:keep], sample.trained[:keep])
    first = sample.trained.index(True)
    start, end = sample.turns[first]
    if start > length - 2:
        raise RowError(PROMPT, f'{start} tokens before the first trained reply')
    encoder.notes['row shortened: a reply cut'] += 1
    ids = np.concatenate([sample.ids[: length - 1], sample.ids[end - 1 : end]])
    return make(ids, [*sample.turns[:first], (start, length)], sample.trained[: first + 1])


def _beginning(sample: 'Sample', encoder: 'Encoder') -> 'Sample':
    """Keep the first `max_length` tokens."""
    length = encoder.max_length
    turns = [(start, min(end, length)) for start, end in sample.spans if start < length]
    if not any(end > max(start, 1) for start, end in turns):
        raise RowError(PROMPT, f'{sample.spans[0][0]} tokens before the first trained one')
    encoder.notes['row shortened: its end cut'] += 1
    return type(sample)(sample.ids[:length], turns, [True] * len(turns))


def _cut(sample: 'Sample', encoder: 'Encoder') -> Iterator['Sample']:
    """Yield `sample` in pieces of `max_length` tokens; pieces without a loss are left out."""
    for at in range(0, len(sample.ids), encoder.max_length):
        ids = sample.ids[at : at + encoder.max_length]
        inside = [(max(start - at, 0), min(end - at, len(ids))) for start, end in sample.spans]
        turns = [(start, end) for start, end in inside if end > start]
        if turns:
            yield type(sample)(ids, turns, [True] * len(turns))
        else:
            encoder.notes[UNTRAINED] += 1


def _split(given: Conversation, encoder: 'Encoder') -> Iterator['Sample']:
    """Yield samples of whole exchanges, each with the system message again."""
    messages = given.messages
    if encoder.train_on == 'last_reply':  # of the whole conversation, not of each part
        last = len(messages) - 1
        messages = [
            m if i == last or m['role'] != 'assistant' else {**m, 'train': False} for i, m in enumerate(messages)
        ]
    head = messages[:1] if messages[0]['role'] == 'system' else []
    ends = [i + 1 for i, m in enumerate(messages) if m['role'] == 'assistant']
    starts = [i for i, m in enumerate(messages) if m['role'] == 'user'] + [len(messages)]
    ends = [end for end in ends if end in starts]  # a tool call and its answer stay together
    begin = len(head)
    while begin < len(messages):
        fitting = None
        for end in (e for e in ends if e > begin):
            piece = encoder.encode(Conversation(head + messages[begin:end], given.tools))
            if fitting is not None and len(piece.ids) > encoder.max_length:
                break
            fitting = (end, piece)
        begin, piece = fitting
        if any(piece.trained):
            try:
                yield piece if len(piece.ids) <= encoder.max_length else _truncated(piece, encoder)
            except RowError as error:
                encoder.notes['exchange left out: ' + error.reason] += 1
        else:
            encoder.notes[UNTRAINED] += 1
