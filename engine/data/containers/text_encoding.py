"""Which encoding a text is in, by its first bytes, and what that is called."""

from __future__ import annotations

import codecs

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\r\x0b\x0c\x1b\x1a")))


def encoding_of(sample: bytes) -> tuple[bytes, str]:
    """The byte order mark, which may be missing, and the name of Python's codec.

    Args:
        sample: The first bytes. Without a mark they are UTF-16 where every other byte is zero, and
            else taken for UTF-8.
    """
    for bom, codec in _BOMS:
        if sample.startswith(bom):
            return bom, codec
    pairs = len(sample) // 2
    if pairs >= 4:
        zeros = [sample[0 : 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)]
        if zeros[1] > 0.4 * pairs and zeros[0] < 0.02 * pairs:
            return b"", "utf-16-le"
        if zeros[0] > 0.4 * pairs and zeros[1] < 0.02 * pairs:
            return b"", "utf-16-be"
    return b"", "utf-8"


def codec_of(encoding: str) -> str:
    """The name of Python's codec for an encoding that a person named."""
    codec = codecs.lookup(encoding).name
    return "utf-8" if codec == "utf-8-sig" else codec


def is_wide(codec: str) -> bool:
    """Whether characters are of two or four bytes, which no other encoding is mistaken for."""
    return codec.startswith(("utf-16", "utf-32"))


def spoken_name(codec: str) -> str:
    """What people call an encoding.

    Example:
        >>> [spoken_name(codec) for codec in ("utf-16-le", "utf-8", "cp1250", "shift_jis")]
        ['UTF-16', 'UTF-8', 'Windows-1250', 'shift_jis']
    """
    if is_wide(codec):
        return codec[:6].upper()
    if codec.startswith("cp125"):
        return f"Windows-{codec[2:]}"
    return codec.upper() if codec.startswith("utf") else codec


def is_binary(sample: bytes) -> bool:
    """Whether bytes of characters of one byte or more hold what no text holds."""
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return controls >= 8 and controls > 0.05 * len(sample)
