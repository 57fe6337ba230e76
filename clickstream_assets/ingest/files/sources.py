"""Bytes of a file, out of whatever they are compressed or packed with, which is told by content and not by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import zstandard

from clickstream_assets.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEAD_BYTES = 1 << 20
"""Bytes of a file that it is recognised by."""
_CHUNK_BYTES = 1 << 18
# Such as a gzipped file in a zip; more is somebody's mistake, or malice.
_MOST_LAYERS = 3
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_TAR_MARK = slice(257, 262)
_OTHER_ARCHIVES = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR"}
# Of a workbook, which is a zip too.
_WORKBOOK_PART = "[Content_Types].xml"
_PARTS_OF_MACOS = "__MACOSX/"

DAMAGE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, zstandard.ZstdError)
"""Errors of compressed bytes that are not as they were written; besides an OSError without a number."""
FAULTS = (EOFError, OSError, UnicodeDecodeError, pa.ArrowException, *DAMAGE)
"""Errors of a file that is not as it was written, while it is read."""


def named_fault(what: object, fault: Exception, read: str) -> Exception:
    """Return the error that says what is wrong with a file, and how much of it could be read; else the fault."""
    if isinstance(fault, EOFError):
        return InputError(f"{what} ends in the middle: the file is truncated, after {read}; fetch it again")
    if isinstance(fault, UnicodeDecodeError):
        return InputError(
            f"{what} is not UTF-8: byte 0x{fault.object[fault.start]:02x} after {read}; convert it, for example with "
            "`iconv -f latin1 -t utf-8`"
        )
    if isinstance(fault, OSError) and fault.errno is not None:
        return fault
    return InputError(f"{what} is damaged after {read} ({fault}); fetch it again")


class _ZstdFile(io.RawIOBase):
    """Bytes of Zstandard's frames; `zstandard`'s own reader takes a truncated frame for a whole one."""

    def __init__(self, compressed: IO[bytes]) -> None:
        self._compressed = compressed
        # As long a window as the program `zstd` makes, with --ultra or --long.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame = self._decompressor.decompressobj()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            if self._frame.eof:
                data = self._frame.unused_data or self._compressed.read(_CHUNK_BYTES)
                if not data:
                    return 0
                self._frame = self._decompressor.decompressobj()
            elif not (data := self._compressed.read(_CHUNK_BYTES)):
                raise EOFError
            self._ready = memoryview(self._frame.decompress(data))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


# By the first bytes: the name, and what reads it.
_COMPRESSIONS: dict[bytes, tuple[str, Callable[[IO[bytes]], object]]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
    b"\x28\xb5\x2f\xfd": ("zstd", _ZstdFile),
}


@contextmanager
def opened(path: Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """Open a file, or one in a zip, decompressed."""
    with path.open("rb") as file:
        if member is None:
            yield _decompressed(file)
            return
        with zipfile.ZipFile(file) as packed, packed.open(member) as unpacked:
            yield _decompressed(
                cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, unpacked), _CHUNK_BYTES))
            )


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    for _ in range(_MOST_LAYERS):
        found = _compression(cast(io.BufferedReader, file).peek(8)[:8])
        if found is None:
            break
        file = cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, found[1](file)), _CHUNK_BYTES))
    return file


def _compression(head: bytes) -> tuple[str, Callable[[IO[bytes]], object]] | None:
    return next((found for magic, found in _COMPRESSIONS.items() if head.startswith(magic)), None)


@dataclass(frozen=True)
class Source:
    """A file, or one in a zip."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        """Name it as a person would look for it."""
        return str(self.path) if self.member is None else f"{self.member} in {self.path}"

    @property
    def name(self) -> str:
        """Its own name, without the folder."""
        return self.path.name if self.member is None else self.member

    def opened(self) -> AbstractContextManager[IO[bytes]]:
        """Open it, decompressed."""
        return opened(self.path, self.member)

    def head(self) -> bytes:
        """Return its first bytes, up to one MiB, or to where it is damaged; without a byte order mark.

        Raises:
            InputError: it cannot be read, not even its first byte.
        """
        read: list[bytes] = []
        size = 0
        try:
            with self.opened() as file:
                while size < HEAD_BYTES and (chunk := cast(io.BufferedReader, file).read1(HEAD_BYTES - size)):
                    read.append(chunk)
                    size += len(chunk)
        except (OSError, EOFError, *DAMAGE, RuntimeError, NotImplementedError) as error:
            # Whoever reads on meets the fault where it is, with the number of events before it.
            if not read:
                raise self._unreadable(error) from None
        return b"".join(read).removeprefix(BYTE_ORDER_MARK)

    def _unreadable(self, error: Exception) -> InputError:
        if isinstance(error, FileNotFoundError):
            return InputError(f"{self} does not exist")
        if isinstance(error, OSError) and error.errno is not None:
            return InputError(f"{self} cannot be read: {error.strerror or error}")
        if isinstance(error, RuntimeError):
            # Encrypted, or by a method of which Python knows the name alone.
            return InputError(f"{self} cannot be unpacked: {error}; unpack it, and name the file of events")
        with self.path.open("rb") as file:
            found = _compression(file.read(8))
        kind = "zip" if self.member is not None else found[0] if found else "compressed"
        return InputError(f"{self} is a truncated or damaged {kind} file; fetch it again")

    def packed(self) -> list[Source] | None:
        """Return the files in it, if it is a zip; else None.

        Raises:
            InputError: it is a damaged zip, or a workbook.
        """
        try:
            with self.path.open("rb") as file:
                start = file.read(512)
            if start.startswith((_ZIP, _EMPTY_ZIP)):
                with zipfile.ZipFile(self.path) as packed:
                    if _WORKBOOK_PART in packed.namelist():
                        raise InputError(
                            f"{self.path} is a workbook of Excel's; save the sheet as CSV, in UTF-8"
                        )
                    return [
                        Source(self.path, one.filename)
                        for one in packed.infolist()
                        if not one.is_dir() and one.file_size and not one.filename.startswith(_PARTS_OF_MACOS)
                    ]
        except (zipfile.BadZipFile, NotImplementedError):
            raise InputError(f"{self.path} is a truncated or damaged zip file; fetch it again") from None
        except OSError as error:
            raise self._unreadable(error) from None
        return None

    def beside(self) -> list[Source]:
        """Return the other files of its folder, or of its zip."""
        if self.member is not None:
            return [one for one in self.packed() or [] if one != self]
        folder = self.path.resolve().parent
        return [
            Source(path)
            for path in sorted(folder.iterdir())
            if path.is_file() and path != self.path.resolve()
        ]


def archive_of(head: bytes) -> str | None:
    """Return the name of the archive that bytes begin, of those that are not read; None if they begin none."""
    if head[_TAR_MARK] == b"ustar":
        return "tar"
    return next((name for magic, name in _OTHER_ARCHIVES.items() if head.startswith(magic)), None)
