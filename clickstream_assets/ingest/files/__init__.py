"""Files of events: JSON of own fields or other trackers', tables of own fields, and public data sets as events.

A reader changes the form, not the values: the pipeline rejects and keeps an event that is not valid. The reader skips
only rows that are no events at all, and counts them by reason.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files.columns import Columns
from clickstream_assets.ingest.files.readers import KeyedValue, Reader
from clickstream_assets.ingest.files.recognition import UnknownFormatError, recognise
from clickstream_assets.ingest.files.skipped import Skipped
from clickstream_assets.ingest.files.sources import FAULTS, Source, named_fault, opened

__all__ = ["Columns", "EventFile", "KeyedValue", "UnknownFormatError", "opened"]

_ANY = Columns()


class EventFile:
    """The events of a file, in its order.

    Format, compression and what else is around it are recognised by content. Each iteration reads the file anew, and
    yields keys and values.

    Args:
        path: The file; of a zip, the one in it that is a file of events.
        columns: Which columns are which fields, where the file does not say it itself.

    Attributes:
        format: Format of the file.
        skipped: Numbers of rows that the latest iteration left out, by reason.
        examples: The first malformed rows of it, with their line numbers.

    Raises:
        InputError: the file is missing, empty, a folder or of no known format; and, while iterating, when it turns
            out to be truncated, damaged or not UTF-8.
    """

    def __init__(self, path: str | Path, columns: Columns = _ANY) -> None:
        self.path = Path(path)
        self._skipped = Skipped()
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; name a file of events in it")
        source = Source(self.path)
        packed = source.packed()
        self._reader = recognise(source, columns) if packed is None else _of_zip(self.path, packed, columns)
        self.format = self._reader.format

    @property
    def skipped(self) -> Counter[str]:
        """Numbers of rows that the latest iteration left out, by reason."""
        return self._skipped.counts

    @property
    def examples(self) -> list[str]:
        """The first malformed rows of the latest iteration, with their line numbers."""
        return self._skipped.examples

    def __iter__(self) -> Iterator[KeyedValue]:
        """Yield the key (the id of the user, or else the visitor, where it can be read) and the value of each event."""
        self._skipped = Skipped()
        read = 0
        try:
            for keyed in self._reader.read(self._skipped):
                yield keyed
                read += 1
        except FAULTS as error:
            raise named_fault(self.path, error, f"{read} readable events") from None


def _of_zip(path: Path, packed: list[Source], columns: Columns) -> Reader:
    """Return what reads the one file of events in a zip.

    Raises:
        InputError: none is one, or several are.
    """
    if not packed:
        raise InputError(f"{path} is a zip with no file in it")
    if len(packed) == 1:
        return recognise(packed[0], columns)
    readers: dict[str, Reader] = {}
    problems: list[str] = []
    for source in packed:
        try:
            readers[source.name] = recognise(source, columns)
        except InputError as error:
            problems.append(str(error))
    if len(readers) == 1:
        return next(iter(readers.values()))
    if readers:
        raise InputError(
            f"{path} has several files of events: {', '.join(sorted(readers))}; unpack it, and name one of them"
        )
    raise InputError(
        f"{path} has no file of events, but {', '.join(sorted(source.name for source in packed))}; the first: "
        f"{problems[0]}"
    )
