#!/usr/bin/env python
"""Measure the speed of data preparation, relative to the tokenizer alone on the same text.

    python tools/benchmark_data.py MODEL_FOLDER [--rows 100000] [--trl]

Runs on a CPU. Prints seconds and rows/s of `tokenizers` encoding the rendered text on all cores, of the preparation by
xtune (read, map, render, tokenize, store, schedule), and of a second start from the cache. With --trl, also of the
preparation by SFTTrainer of trl. Then prints ratios and peak memory. Rows are those of an Alpaca file, or random words.
They repeat, each with a number, so that no two rows are equal.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='folder with a tokenizer')
    parser.add_argument('--rows', type=int, default=100_000, help='number of rows (default: 100000)')
    parser.add_argument('--data', type=Path, help='an Alpaca .json file with the texts (default: random words)')
    parser.add_argument('--trl', action='store_true', help='also measure trl (pip install trl)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['XTUNE_CACHE'] = f'{folder}/cache'
        path = Path(folder) / 'rows.jsonl'
        characters = write_rows(path, args.rows, args.data)
        print(f'{args.rows:,} rows, {characters / args.rows:,.0f} characters each, {os.cpu_count()} cores')
        tokenizer_seconds = time_tokenizer(args.model, path)
        first = time_xtune(args.model, path, 'xtune, first run')
        second = time_xtune(args.model, path, 'xtune, from the cache')
        print(f'speed relative to the tokenizer alone: {tokenizer_seconds / first:.2f}; second start: {second:.1f} s')
        print(f'peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB')
        if args.trl:
            print(f'trl takes {time_trl(args.model, path) / first:.1f} times as long as xtune')


def write_rows(path: Path, count: int, data: Path | None) -> int:
    """Write Alpaca rows and return the number of characters in them."""
    texts = json.loads(data.read_text(encoding='utf-8')) if data else random_rows(2000)
    total = 0
    with path.open('w', encoding='utf-8') as file:
        for i in range(count):
            row = {**texts[i % len(texts)]}
            row['instruction'] = f'{i}. {row["instruction"]}'
            total += sum(len(row[key]) for key in ('instruction', 'input', 'output'))
            file.write(json.dumps(row, ensure_ascii=False) + '\n')
    return total


def random_rows(count: int) -> list[dict]:
    """Return Alpaca rows of random words, with typical lengths."""
    rng = random.Random(0)
    words = [
        ''.join(rng.choices('etaoinshrdlucmfwypvbgk', k=min(2 + int(rng.expovariate(0.3)), 12))) for _ in range(5000)
    ]

    def text(mean_words: int) -> str:
        return ' '.join(rng.choices(words, k=1 + int(rng.expovariate(1 / mean_words)))).capitalize() + '.'

    return [dict(instruction=text(12), input=text(10) if i % 3 == 0 else '', output=text(90)) for i in range(count)]


def alpaca_job(model: str, path: Path):
    """Return the `Job` of the Alpaca preset on the rows."""
    from xtune.config.load import load
    from xtune.config.presets import find
    from xtune.config.wire import wire

    preset = find('smollm2_135m_lora_alpaca_e1')
    job = wire(
        load(preset, {'base_model': model, 'train_dataset.path': str(path), 'chat_template': 'chatml'}), 'benchmark'
    )
    return replace(job, chat_samples=replace(job.chat_samples, every_steps=None))


def time_tokenizer(model: str, path: Path) -> float:
    """Return the seconds of `encode_batch` on the rendered text of all rows, in batches."""
    from transformers import AutoTokenizer

    from xtune.data.map_fns import alpaca_map_fn
    from xtune.templates.resolve import resolve

    tokenizer = AutoTokenizer.from_pretrained(model)
    template = resolve('chatml', tokenizer)
    with path.open(encoding='utf-8') as file:
        texts = [template.render(alpaca_map_fn(json.loads(line)))[0] for line in file]
    os.environ['TOKENIZERS_PARALLELISM'] = 'true'
    start = time.perf_counter()
    for start_row in range(0, len(texts), 1000):
        tokenizer.backend_tokenizer.encode_batch(texts[start_row : start_row + 1000], add_special_tokens=False)
    seconds = time.perf_counter() - start
    del os.environ['TOKENIZERS_PARALLELISM']
    return report('tokenizer alone', len(texts), seconds)


def time_xtune(model: str, path: Path, label: str) -> float:
    """Return the seconds of the complete data preparation of xtune."""
    from xtune.engine.build_run_data import build_run_data

    job = alpaca_job(model, path)
    start = time.perf_counter()
    data = build_run_data(job.model, job.data_spec, job.chat_samples)
    return report(label, data.train.reports[0].rows, time.perf_counter() - start)


def time_trl(model: str, path: Path) -> float:
    """Return the seconds of tokenization and packing in the constructor of SFTTrainer."""
    from datasets import load_dataset
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    config = AutoConfig.from_pretrained(model, num_hidden_layers=1, hidden_size=64, intermediate_size=64)
    llm = AutoModelForCausalLM.from_config(config)
    rows = load_dataset('json', data_files=str(path), split='train', cache_dir=str(path.parent / 'hf'))
    start = time.perf_counter()
    rows = rows.map(as_messages, remove_columns=rows.column_names, num_proc=os.cpu_count())
    settings = SFTConfig(
        output_dir=str(path.parent / 'trl'),
        packing=True,
        max_length=1024,
        dataset_num_proc=os.cpu_count(),
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    SFTTrainer(model=llm, args=settings, train_dataset=rows, processing_class=tokenizer)
    return report('trl', len(rows), time.perf_counter() - start)


def as_messages(row: dict) -> dict:
    """Return an Alpaca row as messages."""
    question = '\n'.join(filter(None, [row['instruction'], row['input']]))
    return dict(messages=[dict(role='user', content=question), dict(role='assistant', content=row['output'])])


def report(label: str, rows: int, seconds: float) -> float:
    """Print a line and return `seconds`."""
    print(f'{label:<22} {seconds:7.1f} s {rows / seconds:9,.0f} rows/s', flush=True)
    return seconds


if __name__ == '__main__':
    main()
