"""Packaging: the checkout's `configs/` is installed as `xtune.configs`, so a wheel carries every preset."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_requirements(name: str) -> list[str]:
    """Return the requirement lines of `requirements/<name>.txt` without comments."""
    lines = (HERE / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    stripped = (line.split(' #')[0].strip() for line in lines)
    return [line for line in stripped if line and not line.startswith('#')]


def config_packages() -> list[str]:
    """Name one package for each folder below `configs/` that holds Python files."""
    folders = {file.parent.relative_to(HERE / 'configs') for file in (HERE / 'configs').rglob('*.py')}
    return sorted({'.'.join(('xtune', 'configs', *folder.parts)) for folder in folders} | {'xtune.configs'})


version = {}
exec((HERE / 'xtune' / 'version.py').read_text(encoding='utf-8'), version)

setup(
    name='xtune',
    version=version['__version__'],
    description='Fine-tune large language models from one Python config file',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['xtune', 'xtune.*']) + config_packages(),
    package_dir={'xtune.configs': 'configs'},
    package_data={
        'xtune.configs': ['*.tsv'],
        'xtune': ['templates/*.jinja', 'inspection/*.jinja', 'data/files/*.jsonl', 'planning/*.json'],
    },
    install_requires=read_requirements('runtime'),
    extras_require={'deepspeed': read_requirements('deepspeed'), 'test': read_requirements('tests')},
    entry_points={'console_scripts': ['xtune = xtune.cli:main']},
)
