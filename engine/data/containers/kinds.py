"""Files that hold no records, or hold them packed: each is called by its kind, with the way out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from engine.data.containers.record_file import mistake

Columnar = Literal["Parquet", "Arrow", "Arrow stream"]

_AS_TEXT = "Save its text as .jsonl, .csv or .txt."
_UNPACK = "Unpack it first and name a file in it."
_DATA_INSTEAD = "Choose a file of conversations or text."
# First bytes, what that is, and the way out.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _DATA_INSTEAD),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Unpack it first (zstd -d)."),
    (b"\x04\x22\x4d\x18", "packed with lz4", "Unpack it first."),
    (b"%PDF-", "a PDF document", _AS_TEXT),
    (b"{\\rtf", "an RTF document", _AS_TEXT),
    (b"SQLite format 3\x00", "an SQLite database", "Export the table as .csv."),
    (b"\x89PNG", "a picture", _DATA_INSTEAD),
    (b"\xff\xd8\xff", "a picture", _DATA_INSTEAD),
    (b"GIF8", "a picture", _DATA_INSTEAD),
    (b"\x89HDF", "an HDF5 file", "Export the table as .csv."),
    (b"\x93NUMPY", "a NumPy array", "Export its text as .jsonl or .csv."),
    (b"FEA1", "an old Feather file", "Save it anew as Parquet."),
    (b"ORC", "an ORC file", "Save it anew as Parquet."),
    (b"Obj\x01", "an Avro file", "Save it anew as Parquet or .jsonl."),
    (b"GGUF", "a model file", _DATA_INSTEAD),
    (b"\x7fELF", "a program", _DATA_INSTEAD),
    (b"PARE", "an encrypted Parquet file", "Decrypt it first."),
    (b"version https://git-lfs", "only a pointer of Git LFS to the file", "Run git lfs pull."),
)  # fmt: skip
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PICKLE = re.compile(rb"\x80[\x02-\x05](\x95.{8}|[\]}c(X\x8c\x58h])", re.DOTALL)
_SAFETENSORS = re.compile(rb".{6}\x00\x00\{\s*\"", re.DOTALL)
_WEB_PAGE = re.compile(
    rb"\s*(<!--.{0,2000}?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_OFFICE = {
    ".xlsx": ("an Excel workbook", "Save it as CSV (UTF-8) in Excel."),
    ".xls": ("an Excel workbook", "Save it as CSV (UTF-8) in Excel."),
    ".ods": ("a spreadsheet", "Save it as CSV (UTF-8)."),
    ".docx": ("a Word document", "Save it as plain text (.txt) in Word."),
    ".doc": ("a Word document", "Save it as plain text (.txt) in Word."),
    ".odt": ("a text document", "Save it as plain text (.txt)."),
    ".pptx": ("a presentation", _AS_TEXT),
    ".epub": ("an e-book", "Save its text as .txt."),
    ".npz": ("a NumPy archive", "Export its text as .jsonl or .csv."),
    ".pt": ("a model file", _DATA_INSTEAD),
    ".pth": ("a model file", _DATA_INSTEAD),
}
_PARTS = (
    (b"xl/", ".xlsx"),
    (b"word/", ".docx"),
    (b"ppt/", ".pptx"),
    (b"mimetypeapplication/epub", ".epub"),
    (b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet", ".ods"),
    (b"mimetypeapplication/vnd.oasis.opendocument.text", ".odt"),
)


def columnar_kind(start: bytes) -> Columnar | None:
    """Which format of columns a file with these first bytes is in."""
    if start.startswith(b"PAR1"):
        return "Parquet"
    if start.startswith(b"ARROW1"):
        return "Arrow"
    return "Arrow stream" if start.startswith(b"\xff\xff\xff\xff") else None


def refuse_other_kinds(start: bytes, path: Path) -> None:
    """Refuse what holds no records, by name.

    Args:
        start: The first bytes, some thousands, after unpacking.
        path: For its name; its ending counts only where the bytes leave it open.

    Raises:
        RequestError: It is such a file.
    """
    kind = _other_kind(start, path.suffix.lower())
    if kind:
        raise mistake(f"{path.name} is {kind[0]}.", kind[1])


def _other_kind(start: bytes, suffix: str) -> tuple[str, str] | None:
    if start.startswith(b"PK\x03\x04"):
        held = next((name for part, name in _PARTS if part in start), suffix)
        if held in _OFFICE:
            return _OFFICE[held]
    if start.startswith(_OLE):
        return _OFFICE.get(suffix, ("an old Office document", _AS_TEXT))
    for magic, kind, advice in _MAGIC:
        if start.startswith(magic):
            return kind, advice
    if start[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")):
        return "packed twice", "Unpack it first."
    if _WEB_PAGE.match(start):
        return "a web page", "Download the file itself: the link led to a page about it."
    if start[:3] == b"RIFF" or start[4:8] == b"ftyp":
        return "a picture, a sound or a film", _DATA_INSTEAD
    if _PICKLE.match(start) or suffix in (".pkl", ".pickle"):
        return "a pickle, which can run code when it is opened", "Save it as .jsonl or .csv."
    if _SAFETENSORS.match(start):
        return "a model file (safetensors)", _DATA_INSTEAD
    return _by_text(start, suffix)


def _by_text(start: bytes, suffix: str) -> tuple[str, str] | None:
    if start.lstrip().startswith(b"<?xml") and suffix not in (".txt", ".md"):
        return "an XML file", "Save its records as .jsonl or .csv."
    if suffix in (".yaml", ".yml"):
        return "a YAML file", "Save its records as .jsonl."
    return None
