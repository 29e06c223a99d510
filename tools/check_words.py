"""Find terms that CONTRIBUTING.md replaces with standard ones.

    python tools/check_words.py

Runs on a CPU in seconds. Reads all tracked text files in `FOLDERS`, prints one line per term with the term to use
instead, and exits with 1 if there is any. `ALLOWED` lists exceptions, such as tables of deprecated options.
"""

import argparse
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
# Exceptions: (file, pattern).
ALLOWED = {('docs/en/config.md', r'float32 masters|\bmasters of\b')}


def replaced_terms() -> list[str]:
    """Return one line per term that must be replaced."""
    tracked = subprocess.run(['git', 'ls-files', *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = []
    for name in tracked.splitlines():
        if not name.endswith(('.py', '.md', '.jinja', '.tsv')):
            continue
        for number, text in enumerate((ROOT / name).read_text(encoding='utf-8').splitlines(), 1):
            for pattern, term in WORDS.items():
                if re.search(pattern, text) and (name, pattern) not in ALLOWED:
                    lines.append(f'{name}:{number}: write `{term}`: {text.strip()[:120]}')
    return lines


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    problems = replaced_terms()
    print('\n'.join(problems))
    sys.exit(bool(problems))
