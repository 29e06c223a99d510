"""Reject terms that CONTRIBUTING.md replaces by the standard ones: python tools/check_words.py

Reads every tracked text file below `FOLDERS`. `ALLOWED` lists the exceptions, such as tables of deprecated options.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('xtune', 'configs', 'docs/en', 'README.md')
# Pattern -> the term to use.
WORDS = {
    r'float32 masters|\bmasters of\b': 'master weights',
    r'\bknobs?\b': 'option',
    r'lies between layers': 'layer inputs',
    r'\bmemory ran out\b': 'out of memory',
    r'signs of life': 'heartbeat',
    r'loss without logits': 'chunked cross-entropy',
    r"\bof xtune's\b": "xtune's",
    r'layouts? of 2023': '2023 remote-code checkpoints',
    r'waits? for Python': 'launch-bound',
    r'neighboring process': 'consecutive ranks',
    r'\bin silence\b': 'silently',
    r'\bput aside\b': 'archive, stage',
    r'\bcan mend\b|\bmust mend\b': 'fix, change',
    r'layers? (that )?recomputes?\b|recomputes? (its|their) activations': 'activation checkpointing',
    r'whole (model|weights) on each': 'full model',
}
# (file, pattern) that may stay.
ALLOWED = {('docs/en/config.md', r'float32 masters|\bmasters of\b')}


def problems() -> list[str]:
    """Return a line for each term that must be replaced."""
    listed = subprocess.run(['git', 'ls-files', *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = []
    for name in listed.splitlines():
        if not name.endswith(('.py', '.md', '.jinja', '.tsv')):
            continue
        for number, text in enumerate((ROOT / name).read_text(encoding='utf-8').splitlines(), 1):
            for pattern, term in WORDS.items():
                if re.search(pattern, text) and (name, pattern) not in ALLOWED:
                    lines.append(f'{name}:{number}: write `{term}`: {text.strip()[:120]}')
    return lines


if __name__ == '__main__':
    found = problems()
    print('\n'.join(found))
    sys.exit(bool(found))
