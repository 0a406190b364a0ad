"""A file's bytes as UTF-8 text: unpacked, and out of the encoding that it was written in."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tbptt.data.errors import DataError
from tbptt.data.tables.encodings import guessed
from tbptt.system.memory import free_memory, too_large

PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
BLOCK = 16 * 2**20
SAMPLE = 2**20
# Bytes of memory that a byte of text takes at most until its series are made, measured on 1,000,000 rows of 8 columns.
TIMES_TEXT = 8
BOMS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def beginning(path: Path) -> tuple[bytes, str | None]:
    """The first bytes of a file, unpacked, at most a MiB; and what it is packed with, None if it is not."""
    with path.open("rb") as file:
        head = file.read(8)
    packed = next((name for magic, name in PACKED.items() if head.startswith(magic)), None)
    with _opened(path, packed) as file:
        return file.read(SAMPLE), packed


@contextmanager
def _opened(path: Path, packed: str | None) -> Iterator[IO[bytes] | Any]:
    if packed == "zip":
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive)) as file:
            yield file
    elif packed == "zstd":
        import pyarrow as pa

        with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, "zstd") as file:
            yield file
    elif packed is None:
        with path.open("rb") as file:
            yield file
    else:
        opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[packed]
        with opener(path, "rb") as file:
            yield file


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one file of an archive. What macOS adds, and folders, are none."""
    members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    names = ", ".join(m.filename for m in members[:4]) + (", …" if len(members) > 4 else "")
    if any(m.filename == "[Content_Types].xml" for m in members):
        raise ValueError("it is an Office document; save its sheet as CSV")
    if len(members) != 1:
        raise ValueError(f"it holds {len(members)} files ({names or 'none'}); unpack it and name one of them")
    if members[0].flag_bits & 1:
        raise ValueError("it is locked by a password; unpack it")
    return members[0]


def unpacked(path: Path, packed: str | None) -> bytes:
    """All bytes of a file, unpacked. Raises ValueError if memory is short, before the file is read."""
    expected = _unpacked_size(path, packed)
    _refuse_large(expected)
    blocks, read = [], 0
    try:
        with _opened(path, packed) as file:
            while block := file.read(BLOCK):
                read += len(block)
                if read > max(expected, BLOCK):
                    _refuse_large(read)
                blocks.append(bytes(block))
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise ValueError(f"it is damaged or not complete ({error})") from error
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _unpacked_size(path: Path, packed: str | None) -> int:
    """About how many bytes a file holds: from the ratio of its beginning, where the format does not say it."""
    size = path.stat().st_size
    if packed is None:
        return size
    if packed == "zip":
        with zipfile.ZipFile(path) as archive:
            return _member(archive).file_size
    if packed == "zstd":
        return 4 * size
    with path.open("rb") as raw:
        opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[packed]
        with opener(raw, "rb") as file:
            try:
                text = len(file.read(4 * SAMPLE))
            except (EOFError, OSError, zlib.error, lzma.LZMAError):
                return size  # reading it says what is wrong
        return int(text / max(1, raw.tell()) * size)


def _refuse_large(text: int) -> None:
    if problem := too_large(TIMES_TEXT * text):
        fits = (free_memory() or 0) / (TIMES_TEXT * text)
        raise ValueError(f"it {problem}; about {100 * fits:.0f}% of its rows would fit")


def as_utf8(raw: bytes, encoding: str | None) -> tuple[bytes, str]:
    """The text in UTF-8 with line ends ``\\n``, and the encoding that it had.

    A byte order mark comes first; then UTF-16 without one, told by its zeros; then UTF-8. Else
    :mod:`tbptt.data.tables.encodings` tells it from the letters.

    Raises:
        ValueError: it is no text, or not in the encoding that is said.
    """
    mark = next((mark for mark in BOMS if raw.startswith(mark)), None)
    if encoding is None:
        encoding = BOMS[mark] if mark is not None else _without_mark(raw)
    try:
        if encoding == "utf-8":
            _check_utf8(raw)
            text = raw
        else:
            text = str(memoryview(raw), encoding).removeprefix("\ufeff").encode()
    except (UnicodeError, LookupError) as error:
        where = f", line {raw[: error.start].count(10) + 1}" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"it is not in {encoding}{where}; say which encoding it has", "data.encoding") from error
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.removeprefix(b"\xef\xbb\xbf"), "utf-8" if encoding == "utf-8-sig" else encoding


def _without_mark(raw: bytes) -> str:
    head = raw[:65536]
    if b"\0" in head:
        even, odd = head[::2].count(0) / (len(head) / 2), head[1::2].count(0) / (len(head) / 2)
        if max(even, odd) < 0.3 or min(even, odd) > 0.1:
            raise ValueError("it is no text")
        return "utf-16-le" if odd > even else "utf-16-be"
    if sum(byte < 9 or 13 < byte < 27 for byte in head) > len(head) / 100:
        raise ValueError("it is no text")
    try:
        _check_utf8(raw)
    except UnicodeDecodeError:
        return guessed(raw)
    return "utf-8"


def _check_utf8(raw: bytes) -> None:
    if not raw.isascii():
        str(memoryview(raw), "utf-8")
