"""tools/plan_table.py: its table goes where the pages have its place, and nowhere else."""

import pytest


@pytest.fixture(scope='module')
def tool(tool):
    """The module."""
    return tool('plan_table')


def test_pages_have_a_place_for_it(tool):
    for page in tool.PAGES:
        text = page.read_text('utf-8')
        made = text.partition(tool.BEGIN)[2].partition(tool.END)[0].strip()
        assert tool.with_table(text, made) == text and '| new |' in tool.with_table(text, '| new |')


@pytest.mark.parametrize('text', ['a page', '<!-- end of table --> <!-- table: tools/plan_table.py -->'])
def test_a_page_without_a_place_is_refused(tool, text):
    with pytest.raises(ValueError, match='page'):
        tool.with_table(text, '| new |')


def test_what_a_card_holds_is_bold(tool):
    assert tool.cell(7 * 2**30) == '**7.0**' and tool.cell(8 * 2**30) == '8.0'
