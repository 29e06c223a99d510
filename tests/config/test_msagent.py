"""The agent presets on the row that their map function shows: replies are trained, results of tools are not."""

import pytest

from xtune.config.load import load
from xtune.config.presets import find, presets
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.inspection.dataset_formats import formats
from xtune.messages import checked
from xtune.templates.resolve import resolve

PRESETS = [name for name in presets() if 'msagent_react' in name]


@pytest.mark.parametrize('name', PRESETS)
def test_responses_are_trained_and_tool_results_are_not(name, tokenizer):
    [shown] = formats('msagent_react')
    own = ChatTokenizer(tokenizer, resolve(load(find(name)).chat_template, tokenizer))
    rendered = own.render(checked(shown.result))
    eos = tokenizer.eos_token
    assert [rendered.text[start:end] for start, end in rendered.spans] == [
        f"Thought:先抽取。\nAction:text-ie\nAction Input:{{'text': '小明到了。'}}{eos}",
        f'Final Answer:人物是小明。{eos}',
    ]
    assert f"{eos}\n<|System|>:Response:{{'人物': ['小明']}}\n<|Bot|>:Final" in rendered.text


def test_the_three_presets_of_xtuner_exist():
    assert len(PRESETS) == 3
