"""Workbooks for tests."""

import openpyxl


def workbook(path, **sheets):
    """Write an .xlsx file to `path` with one sheet per keyword, each a list of rows; return `path`."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path
