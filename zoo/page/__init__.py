"""The zoo as one self-contained HTML page, for people who would rather look than read."""

from zoo.page.html import render, write_page
from zoo.page.panel import Panel

__all__ = ["Panel", "render", "write_page"]
