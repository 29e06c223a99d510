"""The page of `log-dataset --html` in a real browser: it shows its cards, runs and fetches nothing of the data."""

import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
GREEN_LIGHT, GREEN_DARK = (198, 239, 206), (23, 61, 36)  # --green of the page


@pytest.fixture
def browse(tmp_path):
    """Return a function that opens a file, takes more options and returns what the browser prints."""
    if BROWSER is None:
        advice = 'no browser: install chromium (apt-get install chromium) to test the page'
        (pytest.fail if os.environ.get('XTUNE_REQUIRE_BROWSER') == '1' else pytest.skip)(advice)

    def run(page, *options):
        command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--no-first-run']
        command += [
            '--disable-background-networking',
            f'--user-data-dir={tmp_path / "profile"}',
            *options,
            f'file://{page}',
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8')
        try:
            out, err = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        assert process.returncode == 0, err
        return out

    return run


@pytest.fixture
def server():
    """A server that answers nothing; its address and the paths it is asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    serving = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{serving.server_port}', asked
    serving.shutdown()
    serving.server_close()


@pytest.fixture
def make_page(make_config, xtune, tmp_path):
    """Return a function that writes the page of some rows, four of which fit one sequence."""

    def made(rows):
        (tmp_path / 'rows.json').write_text(json.dumps(rows), encoding='utf-8')
        page = tmp_path / 'page.html'
        config = make_config(max_length=512, **{'train_dataset.path': str(tmp_path / 'rows.json')})
        code, _, err = xtune('log-dataset', config, '--html', page, '--rows', 50)
        assert code == 0, err
        return page

    return made


def hostile(address):
    return (
        f'</i></mark></script></style><script>document.title="ran"; fetch("{address}/fetched")</script>'
        f'<img src="{address}/image" onerror="document.title=1"><svg onload=alert(1)>'
        f'<link rel=stylesheet href="{address}/c"><iframe src="{address}/frame"></iframe>'
        f'<style>@import "{address}/css"; mark {{ background: none !important }}</style>'
        '[bold] \x1b[31m \u202e 😀 {{ 7*7 }}'
    )


def share(picture, colour):
    """Return the share of pixels of that colour."""
    pixels = np.asarray(Image.open(picture).convert('RGB'))
    return (np.abs(pixels.astype(int) - colour).max(axis=2) <= 2).mean()


def test_hostile_rows_stay_text_and_nothing_is_fetched(browse, server, make_page, tmp_path):
    address, asked = server
    probe = tmp_path / 'probe.html'
    probe.write_text(f'<img src="{address}/image"><script>fetch("{address}/fetched")</script>', encoding='utf-8')
    browse(probe, '--dump-dom')
    assert {'/image', '/fetched'} <= set(asked)  # the same elements on a page of their own are seen here
    asked.clear()
    attack = hostile(address)
    rows = [{'instruction': f'{attack} {i}', 'output': f'{i} {attack}'} for i in range(3)]
    dom = browse(make_page(rows), '--dump-dom')
    assert dom.count('<article class="card">') == 3 and dom.count('<section class="segment">') == 3
    assert re.findall('<title>(.*?)</title>', dom) == ['run: training data']
    assert not re.findall('<(?:script|img|svg|iframe|link)', dom) and dom.count('<style') == 1
    assert dom.count('<mark>') == 4 and 'U+202E' in dom and '49' not in re.sub('<[^>]*>', '', dom).split()
    assert not asked


def test_trained_tokens_are_green_in_light_and_dark(browse, make_page, tmp_path):
    rows = [{'instruction': 'Say the word.', 'output': 'word ' * 80}] * 4
    page, picture = make_page(rows), tmp_path / 'shot.png'
    sequence = browse(page, '--dump-dom').split('<article')[1]
    assert sequence.count('<section class="segment">') == 4
    options = ('--window-size=900,1400', f'--screenshot={picture}')
    browse(page, *options)
    light = share(picture, GREEN_LIGHT)
    assert light > 0.04 and share(picture, GREEN_DARK) == 0
    browse(page, *options, '--blink-settings=preferredColorScheme=0')
    assert share(picture, GREEN_DARK) > 0.04 and share(picture, GREEN_LIGHT) == 0
    # Without the marks nothing is green but the example in the legend.
    plain = page.with_name('plain.html')
    html = page.read_text(encoding='utf-8')
    head, body = html.split('<main>')
    plain.write_text(head + '<main>' + re.sub('</?mark>', '', body), encoding='utf-8')
    browse(plain, *options)
    assert share(picture, GREEN_LIGHT) < light / 10


@pytest.mark.parametrize(('box', 'before'), [('ids', False), ('borders', True)])
def test_checkboxes_show_and_hide_ids_and_borders(browse, make_page, tmp_path, box, before):
    page = make_page([{'instruction': 'Say the word.', 'output': 'word ' * 20}] * 2)
    html = page.read_text(encoding='utf-8')
    state = f'<input type=checkbox id={box}{" checked" if before else ""}>'
    other = f'<input type=checkbox id={box}{"" if before else " checked"}>'
    assert html.count(state) == 1
    pictures = []
    for name, text in (('before', html), ('after', html.replace(state, other))):
        changed, picture = tmp_path / f'{name}.html', tmp_path / f'{name}.png'
        changed.write_text(text, encoding='utf-8')
        browse(changed, '--window-size=900,1400', f'--screenshot={picture}')
        pictures.append(np.asarray(Image.open(picture).convert('RGB')).astype(int))
    differ = (np.abs(pictures[0] - pictures[1]).max(axis=2) > 20).mean()
    assert differ > 0.001  # the box alone is a quarter of that


def test_nothing_is_wider_than_a_phone(browse, make_page, tmp_path):
    page = make_page([{'instruction': 'x' * 400, 'output': 'no spaces: ' + 'y' * 300}] * 2)
    frame = tmp_path / 'phone.html'
    frame.write_text(
        f'<body style="margin:0"><iframe src="{page.name}" style="width:360px;height:3000px;border:0">', 'utf-8'
    )
    picture = tmp_path / 'shot.png'
    browse(frame, '--window-size=700,3000', f'--screenshot={picture}')
    pixels = np.asarray(Image.open(picture).convert('RGB')).astype(int)
    background = pixels[5, 3]
    # Only what scrolls by itself (the table of sources) may reach the edge: the margin of the page stays empty.
    margin = (np.abs(pixels[:, 348:359] - background).max(axis=2) > 8).any(axis=1).mean()
    assert (background == (244, 245, 247)).all() and margin == 0
