"""Written pages: receipts, tables, labels and letters to read, with exact answers and where they stand."""

from chiasm.data.pages.content import Page
from chiasm.data.pages.layout import PagePart, PagePicture
from chiasm.data.pages.source import Pages

__all__ = ["Page", "PagePart", "PagePicture", "Pages"]
