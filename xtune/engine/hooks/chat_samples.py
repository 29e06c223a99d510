"""Answers to fixed prompts during training, to watch the model learn."""

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from ...config.sections import ChatSamples
from ...models.generate import generate_ids
from ...registry import HOOKS
from ...templates.template import ChatTemplate


@HOOKS.register_module()
class ChatSamplesHook(Hook):
    """Prints greedy answers every `settings.every_steps` optimizer steps and writes them to `path` (.jsonl)."""

    priority = 'LOW'

    def __init__(
        self,
        settings: ChatSamples,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        stop_ids: list[int],
        path: Path,
    ) -> None:
        self.settings, self.tokenizer, self.template = settings, tokenizer, template
        self.stop_ids, self.path = stop_ids, path

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done = runner.train_loop.steps_done
        if done % self.settings.every_steps == 0 or done == runner.train_loop.max_iters:
            self._answer(runner)

    def _answer(self, runner: Any) -> None:
        step = runner.train_loop.steps_done
        runner.model.eval()
        # Answers must not change the run: its random numbers go on as if nothing had happened.
        with torch.random.fork_rng(), self.path.open('a', encoding='utf-8') as file:
            for prompt in self.settings.prompts:
                answer = self._generate(runner.model, prompt)
                file.write(json.dumps(dict(step=step, prompt=prompt, answer=answer), ensure_ascii=False) + '\n')
                tqdm.write(f'step {step}: {prompt}\n    {answer}')
        runner.model.train()

    def _generate(self, task: Any, prompt: str) -> str:
        system = [{'role': 'system', 'content': self.settings.system}] if self.settings.system else []
        text = self.template.prompt([*system, {'role': 'user', 'content': prompt}])
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors='pt')['input_ids'].to(task.device)
        with torch.autocast(task.device.type, dtype=torch.bfloat16, enabled=task.dtype == torch.bfloat16):
            new = generate_ids(task.llm, ids, self.stop_ids, max_new_tokens=self.settings.max_new_tokens)
        return self.tokenizer.decode(new, skip_special_tokens=True).strip()
