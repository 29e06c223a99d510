"""The agent presets on the row that their map function shows: replies are trained, results of tools are not."""

import pytest

from xtune.config.load import load
from xtune.config.presets import presets
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.inspection.dataset_formats import formats
from xtune.messages import checked
from xtune.templates.resolve import resolve

PRESETS = {name: path for name, path in presets().items() if 'msagent_react' in name}


@pytest.mark.parametrize('name', PRESETS)
def test_replies_are_trained_and_results_are_not(name, tokenizer):
    [shown] = formats('msagent_react')
    own = ChatTokenizer(tokenizer, resolve(load(PRESETS[name]).template, tokenizer))
    rendered = own.render(checked(shown.result))
    eos = tokenizer.eos_token
    assert [rendered.text[start:end] for start, end in rendered.spans] == [
        f"Thought:先抽取。\nAction:text-ie\nAction Input:{{'text': '小明到了。'}}{eos}",
        f'Final Answer:人物是小明。{eos}',
    ]
    assert f"{eos}\n<|System|>:Response:{{'人物': ['小明']}}\n<|Bot|>:Final" in rendered.text


def test_the_three_of_the_predecessor_are_there():
    assert len(PRESETS) == 3
