"""Workbooks are read as they are shown: merged cells, percentages, amounts, codes."""

import datetime

import openpyxl
import pytest

from xtune.data.readers import read_file
from xtune.data.readers.shown_number import shown_number

ACCOUNTING = '_-* #,##0.00\\ "€"_-;\\-* #,##0.00\\ "€"_-;_-* "-"??\\ "€"_-;_-@_-'


def written(path, rows, merged=(), formats=()):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for cells in merged:
        book.active.merge_cells(cells)
    for cell, number_format in formats:
        book.active[cell].number_format = number_format
    book.save(path)
    return [tuple(row.values()) for _, row in read_file(path)]


@pytest.mark.parametrize(
    ('merged', 'rows', 'expected'),
    [
        (['B2:B4'], [['1', 'x'], ['2', None], ['3', None]], [('1', 'x'), ('2', 'x'), ('3', 'x')]),
        (['A2:A3'], [['1', 'x'], [None, 'y'], ['2', 'z']], [('1', 'x'), ('1', 'y'), ('2', 'z')]),
        # High cells of one row are one row.
        (['A2:A4', 'B2:B4'], [['1', 'x'], [None, None], [None, None], ['2', 'y']], [('1', 'x'), ('2', 'y')]),
        (['A2:A3', 'A4:A5'], [['1', 'x'], [None, 'y'], [None, 'z'], [None, 'w']],
         [('1', 'x'), ('1', 'y'), (None, 'z'), (None, 'w')]),
        (['A2:B3'], [['1', None], [None, None], ['2', 'y']], [('1', None), ('2', 'y')]),
    ],
)  # fmt: skip
def test_a_cell_merged_over_rows_has_its_value_in_each(tmp_path, merged, rows, expected):
    assert written(tmp_path / 'x.xlsx', [['q', 'a'], *rows], merged) == expected


def test_merged_title_above_the_table_is_ignored(tmp_path):
    rows = [['q', 'a'], [1, 2]]
    assert written(tmp_path / 'x.xlsx', rows, ['C1:D5']) == [(1, 2)]


def test_cells_are_read_as_displayed(tmp_path):
    rows = [['a', 'b', 'c', 'd', 'e'], [0.45, 12.5, 123, datetime.date(2024, 3, 1), 3.14159]]
    formats = [('A2', '0%'), ('B2', '"€"#,##0.00'), ('C2', '00000'), ('D2', 'dd/mm/yyyy'), ('E2', '0.00')]
    assert written(tmp_path / 'x.xlsx', rows, (), formats) == [('45%', '€12.50', '00123', '2024-03-01', 3.14159)]


def test_a_duration_is_given_in_hours(tmp_path):
    given = [datetime.timedelta(hours=26, minutes=5), datetime.timedelta(minutes=7, seconds=9)]
    formats = [('A2', '[h]:mm:ss'), ('B2', '[h]:mm:ss')]
    assert written(tmp_path / 'x.xlsx', [['a', 'b'], given], (), formats) == [('26:05:00', '0:07:09')]


@pytest.mark.parametrize(
    ('value', 'number_format', 'shown'),
    [
        (0.4567, '0.00%', '45.67%'),
        (0.4567, '0.0##%', '45.67%'),
        (0.285, '0%', '29%'),
        (1, '0%', '100%'),
        (-0.05, '0%', '-5%'),
        (-0.001, '0%', '0%'),
        (1234.5, '#,##0.00 "€"', '1,234.50 €'),
        (1234.5, '[$€-407] #,##0.00', '€ 1,234.50'),
        (-5, '"$"#,##0.00_);[Red]\\("$"#,##0.00\\)', '($5.00)'),
        (-12, ACCOUNTING, '-12.00 €'),
        (3, '0"件"', '3件'),
        (7, '000', '007'),
        # The number says as much, with all its digits, or the format is another one.
        (3.14, 'General', None),
        (1234, '#,##0', None),
        (-3, '0_);(0)', None),
        (1.5, '0.00E+00', None),
        (0.5, '# ?/?', None),
        (5, '[>100]0" many";0', None),
    ],
)
def test_numbers_as_a_spreadsheet_shows_them(value, number_format, shown):
    assert shown_number(value, number_format) == shown
