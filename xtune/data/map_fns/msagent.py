"""MSAgent-Bench: API calls between tags, rewritten to the ReAct format of thought, action, response and answer."""

import ast
import json
import re
from typing import Any

from ...messages import Message, RowError
from ...registry import map_fn

_BLOCK = re.compile(r'<\|startof(think|exec)\|>(.*?)<\|endof\1\|>', re.S)
_TAG = re.compile(r'<\|(?:start|end)of(?:think|exec)\|>')
_FENCE = re.compile(r'```(?:JSON|json)?')
_LAYOUT = """
需要工具时，请按以下格式回复：
```
Thought:你对问题的思考
Action:要调用的工具，只能是 [{names}] 中的一个
Action Input:传给工具的参数
```
随后工具返回结果：
```
Response:调用工具的结果
```
不需要工具，或已经可以作答时，请按以下格式回复：
```
Thought:你对问题的思考
Final Answer:给用户的最终答复
```
开始!"""


@map_fn('msagent_react')
def msagent_react_map_fn(row: dict) -> list[Message]:
    r"""MSAgent-Bench conversations in the ReAct format.

    Row:
        {"id": "MS_Agent_Bench_20", "conversations":
         "[{'from': 'system', 'value': '工具：{\"name\": \"text-ie\", \"description\": \"信息抽取\"}'}, "
         "{'from': 'user', 'value': '抽取人物：小明到了。'}, "
         "{'from': 'assistant', 'value': '先抽取。<|startofthink|>```JSON\\n"
         "{\"api_name\": \"text-ie\", \"parameters\": {\"text\": \"小明到了。\"}}\\n```<|endofthink|>\\n\\n"
         "<|startofexec|>```JSON\\n{\"人物\": [\"小明\"]}\\n```<|endofexec|>\\n人物是小明。'}]"}
    Result:
        system: "你可以调用外部工具来完成任务。可用的工具：\n{'text-ie': '信息抽取'}\n\n"
                "需要工具时，请按以下格式回复：\n```\nThought:你对问题的思考\n"
                "Action:要调用的工具，只能是 [['text-ie']] 中的一个\n"
                "Action Input:传给工具的参数\n```\n随后工具返回结果：\n```\nResponse:调用工具的结果\n```\n"
                "不需要工具，或已经可以作答时，请按以下格式回复：\n```\nThought:你对问题的思考\n"
                "Final Answer:给用户的最终答复\n```\n开始!"
        user: "抽取人物：小明到了。"
        assistant: "Thought:先抽取。\nAction:text-ie\nAction Input:{'text': '小明到了。'}"
        tool: "Response:{'人物': ['小明']}"
        assistant: "Final Answer:人物是小明。"

    The column is a list of turns, or its text as a Python or JSON literal. A system turn is replaced by its tools and
    the ReAct instructions. An assistant turn without API calls is a final answer.
    """
    messages: list[Message] = []
    for number, turn in enumerate(_turns(row), 1):
        messages += _messages(turn, f'turn {number}')
    if any(message['role'] == 'system' for message in messages[1:]):
        raise RowError('system message after the start', 'only the first turn may be a system message')
    return messages


def _turns(row: dict) -> list:
    if row.get('conversations') is None:
        raise RowError('no column `conversations`', f'the columns are {", ".join(map(str, row))}')
    turns = row['conversations']
    if isinstance(turns, str):
        turns = _literal(turns)
    if not isinstance(turns, list):
        raise RowError('column `conversations` is not a list of turns', f'it starts with {str(turns)[:40]!r}')
    return turns


def _literal(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _messages(turn: Any, place: str) -> list[Message]:
    """Return the messages of one turn."""
    if not isinstance(turn, dict) or not isinstance(turn.get('value'), str) or 'from' not in turn:
        raise RowError('turn without from or value', f'{place} is {str(turn)[:60]!r}')
    role, value = turn['from'], turn['value']
    if role == 'system':
        return [{'role': 'system', 'content': _system(value)}]
    if role == 'user':
        return [{'role': 'user', 'content': value}]
    if role == 'assistant':
        return _assistant_steps(value, place)
    raise RowError('unknown role', f'{place} is from {role!r}; known: system, user, assistant')


def _system(text: str) -> str:
    tools = _tools(text)
    return f'你可以调用外部工具来完成任务。可用的工具：\n{tools}\n{_LAYOUT.format(names=list(tools))}'


def _tools(text: str) -> dict[str, str]:
    """Return name -> description with input parameters, for each JSON object in `text` that has both fields."""
    tools, start, decoder = {}, text.find('{'), json.JSONDecoder()
    while start >= 0:
        try:
            tool, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if 'name' in tool and 'description' in tool:
                tools[str(tool['name'])] = f'{tool["description"]}{_inputs(tool)}'
        start = text.find('{', end)
    return tools


def _inputs(tool: dict) -> str:
    try:
        inputs = {entry['name']: entry['description'] for entry in tool['paths'][0]['parameters']}
    except (KeyError, IndexError, TypeError):
        return ''
    return f'\n输入参数: {inputs}'


def _assistant_steps(value: str, place: str) -> list[Message]:
    """Return an assistant turn as its steps: actions, tool responses, the final answer."""
    segments = _BLOCK.split(value)  # text, kind, block, text, kind, block, ..., text
    texts, kinds, blocks = segments[::3], segments[1::3], segments[2::3]
    if _TAG.search(''.join(texts)):
        raise RowError('a think or exec block is not closed', f'{place} is {value[:60]!r}')
    if not kinds:
        return [{'role': 'assistant', 'content': f'Final Answer:{value.strip()}'}]
    messages, step = [], []
    for text, kind, block in zip(texts, kinds, blocks, strict=False):
        if kind == 'think':
            step += [f'Thought:{text.strip()}'] if text.strip() else []
            step += _action(block, place)
            continue
        if step:
            messages.append({'role': 'assistant', 'content': '\n'.join(step)})
            step = []
        messages.append({'role': 'tool', 'content': f'Response:{_response(block)}'})
    last = texts[-1].strip()
    if step:
        messages.append({'role': 'assistant', 'content': '\n'.join([*step, last] if last else step)})
    elif last:
        messages.append({'role': 'assistant', 'content': f'Final Answer:{last}'})
    if messages[0]['role'] == 'tool':
        raise RowError('an exec block has no think block', place)
    return messages


def _action(block: str, place: str) -> list[str]:
    try:
        call = json.loads(_FENCE.sub('', block).replace('\n', ''))
        return [f'Action:{call["api_name"]}', f'Action Input:{call["parameters"]}']
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RowError('an API call cannot be read', f'{place}: {type(error).__name__}: {error}') from error


def _response(block: str) -> str:
    text = _FENCE.sub('', block).strip()
    try:
        return str(json.loads(text))
    except (ValueError, RecursionError):
        return text
