"""A file's bytes in pieces, unpacked on the way, with limits that no bomb gets past."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from engine.data.containers.record_file import mistake

PIECE = 1 << 18
MAX_FILE = 20 << 30
MAX_UNPACKED = 4 << 30
# Past this much, text that was packed further than any real text packs is called a bomb.
SUSPICIOUS_BYTES = 64 << 20
SUSPICIOUS_RATIO = 200
_XZ_MEMORY = 128 << 20

Packing = Literal["gzip", "bzip2", "xz"]
_MAGIC: dict[bytes, Packing] = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}


def check_file(path: Path) -> int:
    """The size of a regular file that may be read, in bytes.

    Raises:
        RequestError: It is no file, or larger than 20 GiB.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise mistake(f"{path.name} is a folder.", "Name a file in it.")
    if not stat.S_ISREG(found.st_mode):
        raise mistake(f"{path.name} is a device or a pipe, no file.", "Name a file.")
    if found.st_size > MAX_FILE:
        raise mistake(f"{path.name} is larger than 20 GiB.", "Split it and use a part.")
    return found.st_size


def packing_of(start: bytes) -> Packing | None:
    """How a file with these first bytes is packed."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


class ByteSource:
    """The bytes of one file, unpacked if it is packed.

    Attributes:
        path: The file, a regular one.
        packing: How it is packed, found by its first bytes; None if it is not.

    Raises:
        RequestError: It is no readable file, or too large.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        try:
            with path.open("rb") as file:
                self.packing: Packing | None = packing_of(file.read(8))
        except OSError as error:
            raise _unreadable(path, error) from error

    def start(self, length: int) -> bytes:
        """The first bytes, fewer where the file ends.

        Raises:
            RequestError: As for `pieces`.
        """
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) >= length:
                break
        return bytes(found[:length])

    def pieces(self) -> Iterator[bytes]:
        """All bytes, in pieces of at most 256 KiB, none of them empty.

        Raises:
            RequestError: It is unreadable, damaged, cut off, or unpacks to more than 4 GiB.
        """
        try:
            with self.path.open("rb") as file:
                pieces = self._unpacked(file) if self.packing else _plain(file)
                yield from pieces
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise self._damaged() from error
        except OSError as error:
            # bz2 tells of damage by an OSError without a number.
            raise (self._damaged() if error.errno is None else _unreadable(self.path, error)) from (
                error
            )

    def _unpacked(self, file: BinaryIO) -> Iterator[bytes]:
        total = 0
        with _unpacker(file, self.packing) as unpacked:
            while piece := unpacked.read(PIECE):
                total += len(piece)
                ratio = total / max(1, file.tell())
                if total > MAX_UNPACKED:
                    raise mistake(
                        f"{self.path.name} unpacks to more than 4 GiB.", "Unpack it first."
                    )
                if total > SUSPICIOUS_BYTES and ratio > SUSPICIOUS_RATIO:
                    raise mistake(
                        f"{self.path.name} unpacks to more than {SUSPICIOUS_RATIO} times its size, "
                        "as no real text does.",
                        "If it is right, unpack it first.",
                    )
                yield piece

    def _damaged(self) -> Exception:
        return mistake(f"{self.path.name} is damaged or cut off ({self.packing}).", "Get it anew.")


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _unpacker(file: BinaryIO, packing: Packing | None) -> BinaryIO:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")  # pyright: ignore[reportReturnType]
    if packing == "bzip2":
        return bz2.BZ2File(file, "rb")  # pyright: ignore[reportReturnType]
    return _XzFile(file)  # pyright: ignore[reportReturnType]


class _XzFile:
    """`lzma.LZMAFile` with a limit on memory, which that class has not: a file names its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decoder = self._decoder()
        self.rest = b""

    def __enter__(self) -> _XzFile:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, length: int) -> bytes:
        while True:
            if self.decoder.eof:
                self.rest = (self.decoder.unused_data or self.rest).lstrip(b"\x00")
                self.rest = self.rest or self.file.read(PIECE).lstrip(b"\x00")
                if not self.rest:
                    return b""
                self.decoder = self._decoder()
            if self.decoder.needs_input and not self.rest:
                self.rest = self.file.read(PIECE)
                if not self.rest:
                    raise EOFError
            found = self.decoder.decompress(self.rest, length)
            self.rest = b""
            if found:
                return found

    @staticmethod
    def _decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _unreadable(path: Path, error: Exception) -> Exception:
    reason = (getattr(error, "strerror", None) or "unreadable").lower()
    return mistake(f"{path.name}: {reason}.", "Check the file.")
