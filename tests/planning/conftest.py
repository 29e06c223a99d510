"""Jobs to plan, wired from a config as the commands do it, and folders with a config.json and no weights."""

import json
import re

import pytest

import xtune.planning.estimator

SMALL = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, vocab_size=2000)


@pytest.fixture
def job(make_config):
    """Return a function that wires a small run; options as --cfg-options has them."""
    from xtune.config.load import load
    from xtune.config.wire import wire

    def make(method='lora', **options):
        return wire(load(make_config(method, **{'precision': 'bf16', **options}), {}, check_types=True), 'run').step

    return make


@pytest.fixture
def model_folder(tmp_path, tiny_model):
    """Return a function that writes a folder with a config.json and no weights; one layer unless values say more."""

    def make(**values):
        folder = tmp_path / 'model'
        folder.mkdir(exist_ok=True)
        config = json.loads((tiny_model / 'config.json').read_text('utf-8'))
        values = {**config, **SMALL, 'num_hidden_layers': 1, **values}
        (folder / 'config.json').write_text(json.dumps(values), encoding='utf-8')
        return str(folder)

    return make


@pytest.fixture(scope='session', autouse=True)
def layer_costs_once():
    """Count the layers of equal runs once for all tests: the costs depend on the run and the config of its model."""
    with pytest.MonkeyPatch.context() as patch:
        known, layer_costs = {}, xtune.planning.estimator.layer_costs

        def once(builder):
            run = re.sub(
                r"strategy=Strategy\([^)]*\)|'/[^']*'|PosixPath", '', repr(builder.step)
            )  # without its folders
            key = (run, builder.config.to_json_string(), builder.dtype, builder.device)
            if key not in known:
                known[key] = layer_costs(builder)
            return known[key]

        patch.setattr('xtune.planning.estimator.layer_costs', once)
        yield
