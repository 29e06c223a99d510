"""Imports point down: no file imports from a layer above its own, and no two files import each other in a circle.

Reads every import statement of the package, also those inside functions and under TYPE_CHECKING.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / 'xtune'
# Top to bottom. A name is a package or a module of xtune; names in one line do not import each other.
LAYERS = [
    ('__main__',),
    ('cli',),
    ('commands',),
    ('chat',),
    ('inspection', 'planning'),
    ('export',),
    ('engine',),
    ('tasks',),
    ('optimizations',),
    ('inference',),
    ('methods',),
    ('hf_format',),
    ('parallel',),
    ('data',),
    ('templates',),
    ('ops',),
    ('models',),
    ('config',),
    ('messages', 'registry'),
    ('utils',),
    ('compat', 'errors', 'version'),
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules():
    """Map the name of each module below xtune (`engine.train`; '' is the package itself) to its file."""
    found = {}
    for path in ROOT.rglob('*.py'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imported(name, path, known):
    """Return the modules of xtune that the file of module `name` imports."""
    package = name.split('.') if path.name == '__init__.py' and name else name.split('.')[:-1]
    targets = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            targets |= {alias.name.removeprefix('xtune.') for alias in node.names if alias.name.startswith('xtune.')}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or '').split('.')]
            elif (node.module or '').split('.')[0] == 'xtune':
                base = node.module.split('.')[1:]
            else:
                continue
            base = '.'.join(part for part in base if part)
            for alias in node.names:
                full = f'{base}.{alias.name}' if base else alias.name
                targets.add(full if full in known else base)
    return {target for target in targets if target in known and target != name and target}


def graph():
    known = modules()
    return {name: imported(name, path, known) for name, path in known.items()}


def test_every_package_and_module_has_a_layer():
    top = {name.split('.')[0] for name in modules() if name}
    assert not top - set(LEVEL)


def test_imports_point_down():
    wrong = []
    for name, targets in graph().items():
        if not name:  # `import xtune` registers the model classes that transformers looks up by name
            continue
        own = name.split('.')[0]
        for target in targets:
            other = target.split('.')[0]
            if other != own and LEVEL[other] <= LEVEL[own]:
                wrong.append(f'{name} imports {target}')
    assert not wrong, '\n'.join(sorted(wrong))


def test_there_are_no_import_cycles():
    edges, state, circles = graph(), {}, []

    def visit(name, path):
        state[name] = 'open'
        for target in sorted(edges[name]):
            if state.get(target) == 'open':
                circles.append(' -> '.join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 'done'

    for name in sorted(edges):
        if name not in state:
            visit(name, [name])
    assert not circles, '\n'.join(circles)


def test_models_has_few_files():
    files = [path for path in (ROOT / 'models').rglob('*.py') if 'legacy' not in path.parts]
    assert len(files) <= 15, sorted(str(path.relative_to(ROOT)) for path in files)
