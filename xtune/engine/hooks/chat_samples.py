"""Generated answers to fixed prompts during training, which show how the model changes."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from tqdm import tqdm

from ...config.sections import ChatSamples
from ...data.chat_tokenizer import ChatTokenizer
from ...inference.generate import generate_ids
from ...parallel.collectives import rank
from ...registry import HOOKS
from ...templates.system_prompts import system_text


@HOOKS.register_module()
class ChatSamplesHook(Hook):
    """Prints greedy answers every `settings.every_steps` optimizer steps and writes them to `path` (.jsonl)."""

    priority = 'LOW'

    def __init__(
        self,
        settings: ChatSamples,
        chat_tokenizer: ChatTokenizer,
        stop_ids: list[int],
        path: Path,
    ) -> None:
        self.settings, self.chat_tokenizer, self.stop_ids, self.path = settings, chat_tokenizer, stop_ids, path

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done = runner.train_loop.steps_done
        if done % self.settings.every_steps == 0 or done == runner.train_loop.max_iters:
            self._answer(runner)

    def _answer(self, runner: Any) -> None:
        step = runner.train_loop.steps_done
        runner.model.eval()
        # All ranks generate, because a sharded model needs all of them; rank 0 writes.
        # Generation must not change the run, so the RNG states are restored.
        path = Path(os.devnull) if rank() else self.path
        devices = [runner.model.device] if runner.model.device.type == 'cuda' else []
        with torch.random.fork_rng(devices), path.open('a', encoding='utf-8') as file, runner.model.generation_mode():
            for prompt in self.settings.prompts:
                answer = self._generate(runner.model, prompt)
                file.write(json.dumps(dict(step=step, prompt=prompt, answer=answer), ensure_ascii=False) + '\n')
                tqdm.write(f'step {step}: {prompt}\n    {answer}')
        runner.model.train()

    def _generate(self, task: Any, prompt: str) -> str:
        system = self.settings.system
        system = [{'role': 'system', 'content': system_text(system)}] if system else []
        ids = torch.tensor([self.chat_tokenizer.prompt_ids([*system, {'role': 'user', 'content': prompt}])]).to(
            task.device
        )
        with task.autocast():
            new = generate_ids(task.llm, ids, self.stop_ids, max_new_tokens=self.settings.max_new_tokens)
        # transformers ignores this setting in the config of BPE tokenizers, with a warning.
        decoding = dict(skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self.chat_tokenizer.tokenizer.decode(new, **decoding).strip()
