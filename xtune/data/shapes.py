"""The columns by which rows of each format are known, in order of precedence.

Some formats have the columns of another one and must be named: `medical` (as alpaca), `code_alpaca` (as
prompt_response), `crime_kg_assitant` (as default), `self_cognition` (as openai), `orpo_dpo_mix_40k` (as preference),
`pretrain` (as text).
"""

from collections.abc import Callable
from typing import NamedTuple

from .map_fns.columns import is_messages
from .map_fns.prompts import question_answer_columns

Test = Callable[[dict], bool]


class Shape(NamedTuple):
    """Rows for the map function `name`: the columns they must have, a further test, and what to tell a user."""

    name: str
    columns: tuple[str, ...]
    test: Test = lambda row: True
    shown: str = ''


def _is(column: str, kind: type) -> Test:
    return lambda row: isinstance(row[column], kind)


def _says(column: str, words: str) -> Test:
    return lambda row: words in str(row[column]).lower()


def _entries_have(column: str, key: str) -> Test:
    def test(row: dict) -> bool:
        first = row[column][0] if isinstance(row[column], list) and row[column] else None
        return isinstance(first, dict) and key in first

    return test


def _any_messages(*columns: str) -> Test:
    return lambda row: any(is_messages(row[column]) for column in columns)


def _has_pair(row: dict) -> bool:
    return question_answer_columns(row) is not None and 'context' not in {str(name).lower() for name in row}


def _question_and_answer(row: dict) -> bool:
    names = {str(name).lower() for name in row}
    # With a context, the question alone is not what is to be answered.
    return {'question', 'answer'} <= names and 'context' not in names


# In order of precedence: a shape that asks for more comes before one that asks for less.
SHAPES = (
    Shape('tokenized', ('input_ids',), shown='input_ids, labels (may be missing); or tokens'),
    Shape('tokenized', ('tokens',), _is('tokens', list)),
    Shape('moss_sft', ('meta_instruction', 'chat')),
    Shape('preference', ('chosen', 'rejected'), shown='prompt, conversations or instruction; chosen, rejected'),
    Shape(
        'openai_preference',
        ('input', 'preferred_output', 'non_preferred_output'),
        shown='input: {messages}, preferred_output, non_preferred_output',
    ),
    Shape('gemini', ('contents',), _entries_have('contents', 'parts'), 'contents: [{role, parts}, ...]'),
    Shape('bedrock', ('schemaVersion', 'messages')),
    Shape('openai', ('messages',), shown='messages: [{role, content}, ...], tools (may be missing)'),
    Shape('openai', ('conversations',), _entries_have('conversations', 'role')),
    Shape('openai', ('conversation',), _entries_have('conversation', 'role')),
    Shape('xtuner', ('conversation',), _entries_have('conversation', 'output'), 'conversation: [{input, output}, ...]'),
    Shape('xtuner', ('conversations',), _entries_have('conversations', 'output')),
    Shape('openai', ('dialogue',), _entries_have('dialogue', 'role')),
    Shape('msagent_react', ('conversations',), _is('conversations', str), 'conversations: a list as text'),
    Shape('llava', ('conversations', 'image')),
    Shape('llava', ('img_id', 'sents')),
    Shape('wizardlm', ('conversations', 'idx')),
    Shape('sharegpt', ('conversations',), shown='conversations: [{from, value}, ...], tools (may be missing)'),
    Shape('sharegpt', ('conversation',)),
    Shape('alpaca_zh', ('instruction_zh', 'output_zh'), shown='instruction_zh, input_zh (may be missing), output_zh'),
    Shape('alpaca', ('instruction', 'output'), shown='instruction, input (may be missing), output'),
    Shape('dolly', ('instruction', 'response'), shown='instruction, context (may be missing), response'),
    Shape('colors', ('description', 'color')),
    Shape('arxiv', ('abstract', 'title')),
    Shape('openorca', ('system_prompt', 'question', 'response')),
    Shape('stack_exchange', ('question', 'response')),
    Shape(
        'sql',
        ('context', 'question', 'answer'),
        _says('context', 'create table'),
        'context (CREATE TABLE ...), question, answer',
    ),
    Shape('law_reference', ('question', 'answer', 'reference')),
    Shape('medqa', (), _question_and_answer, 'question, answer (other names: map_args.question=... and .answer=...)'),
    Shape('xlam', ('query', 'answers', 'tools')),
    Shape('query_response', ('query', 'response'), shown='query, response, history (may be missing)'),
    Shape(
        'prompt_completion',
        ('prompt', 'completion'),
        _any_messages('prompt', 'completion'),
        'prompt, completion: texts or lists of messages',
    ),
    Shape('prompt_completion', ('prompt', 'response'), _any_messages('prompt', 'response')),
    Shape('tiny_codes', ('prompt', 'response', 'programming_language')),
    Shape('prompt_response', ('prompt', 'response')),
    Shape('prompt_response', ('prompt', 'completion')),
    Shape('default', ('input', 'output')),
    Shape('pair', (), _has_pair, 'human, assistant; problem, solution; and more (see list-dataset-format pair)'),
    Shape('oasst1', ('text',), _says('text', '### human:'), 'text (### Human: ... ### Assistant: ...)'),
    Shape('text', ('text',)),
)
