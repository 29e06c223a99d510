"""tools/plan_table.py: the table is written between the markers of the pages."""

import pytest


@pytest.fixture(scope='module')
def tool(tool):
    """The module."""
    return tool('plan_table')


def test_pages_have_markers(tool):
    for page in tool.PAGES:
        text = page.read_text('utf-8')
        table = text.partition(tool.BEGIN)[2].partition(tool.END)[0].strip()
        assert tool.with_table(text, table) == text and '| new |' in tool.with_table(text, '| new |')


@pytest.mark.parametrize('text', ['a page', '<!-- end of table --> <!-- table: tools/plan_table.py -->'])
def test_a_page_without_markers_is_refused(tool, text):
    with pytest.raises(ValueError, match='page'):
        tool.with_table(text, '| new |')


def test_a_value_that_fits_is_bold(tool):
    assert tool.cell(7 * 2**30) == '**7.0**' and tool.cell(8 * 2**30) == '8.0'
