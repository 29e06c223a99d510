"""MSAgent-Bench: calls of APIs, rewritten to thought, action, response and answer."""
from xtune.data.map_fns import msagent_react_map_fn

train_dataset = dict(
    path='modelscope:damo/MSAgent-Bench',
    map_fn=msagent_react_map_fn,
)

max_length = 2048

pack = False

chat_samples = dict(
    every_steps=500,
    prompts=[
        '上海明天天气怎么样？',
    ],
    system=(
        '你可以调用外部工具来完成任务。可用的工具：\n'
        "{'GoogleSearch': '用搜索引擎查找网上的信息。输入参数：query，要搜索的内容', "
        "'PythonInterpreter': '运行 Python 代码并返回结果。输入参数：code，代码'}\n\n"
        '需要工具时，请按以下格式回复：\n```\nThought:你对问题的思考\n'
        "Action:要调用的工具，只能是 [['GoogleSearch', 'PythonInterpreter']] 中的一个\n"
        'Action Input:传给工具的参数\n```\n随后工具返回结果：\n```\nResponse:调用工具的结果\n```\n'
        '不需要工具，或已经可以作答时，请按以下格式回复：\n```\nThought:你对问题的思考\n'
        'Final Answer:给用户的最终答复\n```\n开始!'
    ),
    max_new_tokens=128,
)
