"""Reading texts, with or without labels, from the files people have: plain text, CSV, TSV, JSON and JSON Lines.

A row that cannot be used is yielded as a `BadRow` with its file, line and reason instead of ending the iteration, so that the
caller decides whether one bad row spoils the file (training: yes) or only itself (classifying: no).
"""

from models.tables.fields import fault_of
from models.tables.files import STANDARD_INPUT, TextFile, open_text, source_name
from models.tables.recognition import kind_of
from models.tables.rows import read_rows, read_table
from models.tables.types import BadRow, Kind, Label, LabelKind, Notice, Row, TableError, TableFormat

__all__ = [
    "STANDARD_INPUT",
    "BadRow",
    "Kind",
    "Label",
    "LabelKind",
    "Notice",
    "Row",
    "TableError",
    "TableFormat",
    "TextFile",
    "fault_of",
    "kind_of",
    "open_text",
    "read_rows",
    "read_table",
    "source_name",
]
