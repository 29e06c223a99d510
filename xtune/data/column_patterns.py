"""The columns that identify each row format, in order of precedence.

Some formats have the columns of another one and must be selected by name: `medical` (as alpaca), `code_alpaca` (as
prompt_response), `crime_kg_assitant` (as default), `self_cognition` (as openai), `orpo_dpo_mix_40k` (as preference),
`pretrain` (as text).
"""

from collections.abc import Callable
from typing import NamedTuple

from .map_fns.columns import is_messages
from .map_fns.prompts import question_answer_columns

RowTest = Callable[[dict], bool]


class Pattern(NamedTuple):
    """The columns of rows for one map function.

    Attributes:
        name: Registered name of the map function.
        columns: Columns the rows must have.
        test: A further condition on a row.
        description: The columns as shown to users; empty for the names of `columns`.
    """

    name: str
    columns: tuple[str, ...]
    test: RowTest = lambda row: True
    description: str = ''


def _is(column: str, value_type: type) -> RowTest:
    return lambda row: isinstance(row[column], value_type)


def _contains(column: str, words: str) -> RowTest:
    return lambda row: words in str(row[column]).lower()


def _entries_have(column: str, key: str) -> RowTest:
    def test(row: dict) -> bool:
        first = row[column][0] if isinstance(row[column], list) and row[column] else None
        return isinstance(first, dict) and key in first

    return test


def _any_messages(*columns: str) -> RowTest:
    return lambda row: any(is_messages(row[column]) for column in columns)


def _has_pair(row: dict) -> bool:
    return question_answer_columns(row) is not None and 'context' not in {str(name).lower() for name in row}


def _question_and_answer(row: dict) -> bool:
    names = {str(name).lower() for name in row}
    # With a context, the question alone is not the prompt.
    return {'question', 'answer'} <= names and 'context' not in names


# In order of precedence: a pattern with more conditions comes before one with fewer.
COLUMN_PATTERNS = (
    Pattern('tokenized', ('input_ids',), description='input_ids, labels (optional); or tokens'),
    Pattern('tokenized', ('tokens',), _is('tokens', list)),
    Pattern('moss_sft', ('meta_instruction', 'chat')),
    Pattern('preference', ('chosen', 'rejected'), description='prompt, conversations or instruction; chosen, rejected'),
    Pattern(
        'openai_preference',
        ('input', 'preferred_output', 'non_preferred_output'),
        description='input: {messages}, preferred_output, non_preferred_output',
    ),
    Pattern('gemini', ('contents',), _entries_have('contents', 'parts'), 'contents: [{role, parts}, ...]'),
    Pattern('bedrock', ('schemaVersion', 'messages')),
    Pattern('openai', ('messages',), description='messages: [{role, content}, ...], tools (optional)'),
    Pattern('openai', ('conversations',), _entries_have('conversations', 'role')),
    Pattern('openai', ('conversation',), _entries_have('conversation', 'role')),
    Pattern(
        'xtuner', ('conversation',), _entries_have('conversation', 'output'), 'conversation: [{input, output}, ...]'
    ),
    Pattern('xtuner', ('conversations',), _entries_have('conversations', 'output')),
    Pattern('openai', ('dialogue',), _entries_have('dialogue', 'role')),
    Pattern('msagent_react', ('conversations',), _is('conversations', str), 'conversations: a list as text'),
    Pattern('llava', ('conversations', 'image')),
    Pattern('llava', ('img_id', 'sents')),
    Pattern('wizardlm', ('conversations', 'idx')),
    Pattern('sharegpt', ('conversations',), description='conversations: [{from, value}, ...], tools (optional)'),
    Pattern('sharegpt', ('conversation',)),
    Pattern('alpaca_zh', ('instruction_zh', 'output_zh'), description='instruction_zh, input_zh (optional), output_zh'),
    Pattern('alpaca', ('instruction', 'output'), description='instruction, input (optional), output'),
    Pattern('dolly', ('instruction', 'response'), description='instruction, context (optional), response'),
    Pattern('colors', ('description', 'color')),
    Pattern('arxiv', ('abstract', 'title')),
    Pattern('openorca', ('system_prompt', 'question', 'response')),
    Pattern('stack_exchange', ('question', 'response')),
    Pattern(
        'sql',
        ('context', 'question', 'answer'),
        _contains('context', 'create table'),
        'context (CREATE TABLE ...), question, answer',
    ),
    Pattern('law_reference', ('question', 'answer', 'reference')),
    Pattern('medqa', (), _question_and_answer, 'question, answer (other names: map_args.question=... and .answer=...)'),
    Pattern('xlam', ('query', 'answers', 'tools')),
    Pattern('query_response', ('query', 'response'), description='query, response, history (optional)'),
    Pattern(
        'prompt_completion',
        ('prompt', 'completion'),
        _any_messages('prompt', 'completion'),
        'prompt, completion: texts or lists of messages',
    ),
    Pattern('prompt_completion', ('prompt', 'response'), _any_messages('prompt', 'response')),
    Pattern('tiny_codes', ('prompt', 'response', 'programming_language')),
    Pattern('prompt_response', ('prompt', 'response')),
    Pattern('prompt_response', ('prompt', 'completion')),
    Pattern('default', ('input', 'output')),
    Pattern('pair', (), _has_pair, 'human, assistant; problem, solution; and more (see list-dataset-format pair)'),
    Pattern('oasst1', ('text',), _contains('text', '### human:'), 'text (### Human: ... ### Assistant: ...)'),
    Pattern('text', ('text',)),
)
