"""Load exports with transformers 4: run by the interpreter of a venv of its own, without xtune.

python v4_reader.py FOLDER ...  prints a JSON line: for each folder the ids of a prompt and the tokens of an answer,
                                or what went wrong. A folder without config.json has only its tokenizer read.
"""

import json
import sys
from pathlib import Path

MESSAGES = [{'role': 'user', 'content': 'What is 2 plus 2? <|im_end|> Ünïcode 请.'}]


def read(folder: str) -> dict:
    """Return prompt ids and greedy tokens of `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = {}
    if (Path(folder) / 'tokenizer_config.json').is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.chat_template:
            prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
            found['prompt'] = tokenizer(prompt, add_special_tokens=False)['input_ids']
        found['bare'] = tokenizer('Hello, who are you?')['input_ids']
    if (Path(folder) / 'config.json').is_file():
        llm, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        found['wrong'] = sorted({*report['missing_keys'], *report['unexpected_keys']})
        ids = (torch.arange(5, 95) * 7 % min(llm.config.vocab_size, 500))[None]
        with torch.no_grad():
            found['logits'] = llm.eval()(input_ids=ids, use_cache=False).logits[0, -1, :8].tolist()
            greedy = llm.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        found['tokens'] = greedy[0, ids.shape[1] :].tolist()
    return found


if __name__ == '__main__':
    results = {}
    for name in sys.argv[1:]:
        try:
            results[name] = read(name)
        except Exception as error:
            results[name] = {'error': f'{type(error).__name__}: {error}'}
    print(json.dumps(results))
