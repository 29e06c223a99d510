"""Text files that several processes write at the same time."""

import os

from xtune.utils.atomic import write_text


def test_processes_may_write_the_same_file(tmp_path):
    path, children = tmp_path / 'a.py', []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                for _ in range(200):
                    write_text(path, 'x = 1\n' * 100)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert path.read_text() == 'x = 1\n' * 100 and os.listdir(tmp_path) == ['a.py']
