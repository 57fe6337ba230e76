"""A folder on this machine or in an object store: where stores are, and where backups go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.files import NO_SPACE, room

T = TypeVar("T")
Counting = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
"""Opens a count of a description, a total, and what is counted; gives a function that is told how many there are."""

_CHUNK_BYTES = 4 * 1024 * 1024
# An object store answers many requests at once in the time of one.
_AT_ONCE = 8


def uncounted(*_: object) -> AbstractContextManager[Callable[[int], None]]:
    """Report counts to nobody."""
    return nullcontext(lambda _: None)


@dataclass(frozen=True)
class Written:
    """A file as it was written: bytes, and SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Found:
    """A file as it is listed: bytes, and nanoseconds since 1970 when it was written, by the clock of its storage."""

    size: int
    written_at: int


class Sink:
    """A file that is being written, and the checksum of what it has so far."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._stream.write(data)
        self._hash.update(data)
        self._size += len(data)
        return len(data)

    @property
    def written(self) -> Written:
        """Size and checksum of all that was written so far."""
        return Written(self._size, self._hash.hexdigest())


class Place:
    """A folder. Files are read and written as they are: by default PyArrow would unpack one that is called `.zst`.

    Args:
        uri: An absolute path, or s3://… as settings spell it, which may be s3a://….
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        with self._explained():
            self._fs, root = fs.FileSystem.from_uri(self.uri.replace("s3a://", "s3://", 1))
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, fs.LocalFileSystem)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            # Who asks for a file knows what it means that it is gone.
            raise
        except (OSError, pa.ArrowException) as error:
            cause = " ".join(str(error).split())
            if NO_SPACE.search(cause):
                raise BackupError(
                    f"no space left: {room(self.uri)}. Free some, and run it again", retryable=True
                ) from error
            raise BackupError(
                f"{self.uri} cannot be read or written: {cause}. See that it is there and that this user may do that, "
                "and run it again",
                retryable=True,
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def entries(self, under: str = "") -> list[str]:
        """Return the names of the files and folders in a folder; none where it is not there."""
        selector = fs.FileSelector(self._path(under), allow_not_found=True)
        with self._explained():
            return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def files(self, under: str = "") -> dict[str, Found]:
        """Return all files under a folder, by their paths in it; none where it is not there."""
        folder = self._path(under)
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=True)
        with self._explained():
            found = self._fs.get_file_info(selector)
        return {
            info.path[len(folder) + 1 :]: Found(info.size, info.mtime_ns)
            for info in found
            if info.type == fs.FileType.File
        }

    def find(self, name: str) -> Found | None:
        """Return a file as it is listed; None where it is not there."""
        with self._explained():
            info = self._fs.get_file_info(self._path(name))
        return Found(info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    def read(self, name: str) -> bytes | None:
        """Return what a small file holds; None where it is not there."""
        with (
            self._explained(),
            suppress(FileNotFoundError),
            self._fs.open_input_stream(self._path(name), compression=None) as file,
        ):
            return bytes(file.readall())
        return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield what a file holds.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._explained(), self._fs.open_input_stream(self._path(name), compression=None) as file:
            while data := file.read(_CHUNK_BYTES):
                yield data

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        """Write a file, which is there once it is whole; one of that name is replaced."""
        path = self._path(name)
        partial = f"{path}.{uuid4().hex}.partial"
        if not self._is_local:
            # An object appears when it is closed.
            with self._explained(), self._fs.open_output_stream(path, compression=None) as stream:
                yield Sink(stream)
            return
        with self._explained():
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with self._fs.open_output_stream(partial, compression=None) as stream:
                    yield Sink(stream)
                self._fs.move(partial, path)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise

    def write(self, name: str, data: bytes) -> Written:
        """Write a small file, as `writing` does."""
        with self.writing(name) as sink:
            sink.write(data)
        return sink.written

    def copy(self, name: str, to: Place, new_name: str) -> Written:
        """Copy a file to another place.

        Raises:
            FileNotFoundError: it is not there.
        """
        with to.writing(new_name) as sink:
            for data in self.chunks(name):
                sink.write(data)
        return sink.written

    def digest(self, name: str) -> Written:
        """Read a file for its size and checksum.

        Raises:
            FileNotFoundError: it is not there.
        """
        digest, size = hashlib.sha256(), 0
        for data in self.chunks(name):
            digest.update(data)
            size += len(data)
        return Written(size, digest.hexdigest())

    def remove(self, name: str) -> None:
        """Delete a file."""
        with self._explained():
            self._fs.delete_file(self._path(name))

    def remove_folder(self, name: str) -> None:
        """Delete a folder with all that is in it; none need be there."""
        with self._explained(), suppress(FileNotFoundError):
            self._fs.delete_dir(self._path(name))

    def is_in(self, other: Place) -> bool:
        """Return whether it is another place, or a folder of it."""
        return type(self._fs) is type(other._fs) and f"{self._root}/".startswith(f"{other._root}/")


def each(
    do: Callable[[str], T],
    names: Iterable[str],
    sizes: Mapping[str, int],
    counting: Counting,
    description: str,
) -> dict[str, T]:
    """Do something with files, several at once; return what came of each.

    Args:
        do: Is given a file's name.
        names: The files.
        sizes: Their bytes, for the count.
        counting: Opens the count, of bytes.
        description: What is done.
    """
    names = list(names)
    done: dict[str, T] = {}
    with (
        counting(description, sum(sizes[name] for name in names), "bytes") as count,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        try:
            so_far = 0
            for name, result in zip(names, pool.map(do, names), strict=True):
                done[name] = result
                so_far += sizes[name]
                count(so_far)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return done
