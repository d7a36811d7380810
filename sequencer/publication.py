"""The settled journal for everybody: pages of records that never change, over HTTP and as files to mirror.

    index.json                {"genesis_hash", "records", "head_hash", "page_records"}
    pages/000000.jsonl        records 1 to 1000, one JSON object a line: sequence, stamp_ms, payload, hash

Only what a confirmed batch has settled is published; the last page grows until it is full. With these and a node
anybody can replay the exchange: `evermark verify --journal-url`.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec
import stamina

from sequencer.journal import Head, Journal, JournalRefused, Record

PAGE_RECORDS = 1_000  # some 700 KB
INDEX = "index.json"
FETCH_S = 30.0
ATTEMPTS = 5
MAX_PAGE_BYTES = 64 * 2**20


class Index(msgspec.Struct, frozen=True):
    """What is published."""

    genesis_hash: str
    records: int
    head_hash: str  # of the last one
    page_records: int


class Line(msgspec.Struct, frozen=True):
    """One record as a line of a page."""

    sequence: int
    stamp_ms: int
    payload: str
    hash: str


_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class PagesAway(JournalRefused):
    """Nobody answers where pages should be, or there are none."""


class PageSource(Protocol):
    """Where pages come from: a sequencer, a mirror, a directory."""

    def fetch(self, path: str) -> bytes:
        """The content at a path like pages/000000.jsonl. Raises JournalRefused."""
        ...


class UrlPages:
    """A publication at an http, https or file address."""

    def __init__(self, url: str, told: Callable[[str], None] = lambda _: None) -> None:
        """`told` hears one line when a page does not come at once. Raises JournalRefused for another kind of address."""
        if urlsplit(url).scheme not in ("http", "https", "file"):
            raise JournalRefused(f"journal: {url} is no http, https or file address")
        self._url = url.rstrip("/")
        self._told = told

    def fetch(self, path: str) -> bytes:
        """The content at `path` below the address. Tries a few times."""
        content, place, tries = b"", f"{self._url}/{path}", 0
        try:
            for attempt in stamina.retry_context(on=_worth_another_try, attempts=ATTEMPTS):
                tries = attempt.num
                if tries == 2:
                    self._told(f"{place} does not answer; asked again, {ATTEMPTS} times in all")
                with attempt, urlopen(place, timeout=FETCH_S) as answer:
                    content = answer.read(MAX_PAGE_BYTES + 1)
        except OSError as error:
            often = f", asked {tries} times" if tries > 1 else ""
            raise PagesAway(f"journal: {place} does not read: {_reason(error)}{often}") from None
        if len(content) > MAX_PAGE_BYTES:
            raise JournalRefused(f"journal: {self._url}/{path} has more than {MAX_PAGE_BYTES} bytes")
        return content


def _worth_another_try(error: Exception) -> bool:
    """A refused connection or a busy server, not a page that does not exist."""
    if isinstance(error, HTTPError):
        return error.code in (429, 502, 503, 504)
    return isinstance(error, OSError) and not isinstance(getattr(error, "reason", None), FileNotFoundError)


def _reason(error: OSError) -> str:
    """In words, without the library's own."""
    if isinstance(error, HTTPError):
        return f"it answers {error.code} {error.reason}"
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)


def page_path(number: int) -> str:
    """Path of page `number`, from 0."""
    return f"pages/{number:06}.jsonl"


def encode_page(records: list[Record]) -> bytes:
    """A page's text."""
    lines = [
        msgspec.json.encode(
            Line(record.sequence, record.stamp_ms, record.payload.decode(), "0x" + record.hash.hex())
        )
        for record in records
    ]
    return b"".join(line + b"\n" for line in lines)


class Publication:
    """The pages of one journal up to what is settled. `journal` is used from a thread, one call at a time."""

    def __init__(self, journal: Journal, settled: Callable[[], int]) -> None:
        """`settled` is the last record that a confirmed batch covers."""
        self._journal = journal
        self._settled = settled
        self._lock = asyncio.Lock()

    def index(self) -> Index:
        """What there is now; zero records before the first settled batch."""
        records = self._settled()
        first = self._journal.record(1).hash
        last = self._journal.record(records).hash if records else b""
        return Index("0x" + first.hex(), records, "0x" + last.hex(), PAGE_RECORDS)

    def page(self, number: int) -> bytes:
        """A page; empty beyond the last one."""
        first = number * PAGE_RECORDS + 1
        last = min(self._settled(), first + PAGE_RECORDS - 1)
        if first > last:
            return b""
        return encode_page(list(islice(self._journal.read(first), last - first + 1)))

    def close(self) -> None:
        """Close the journal's connection."""
        self._journal.close()

    async def answer(self, path: str) -> bytes | None:
        """What stands at a path of the publication, None for nothing. Reads in a thread."""
        async with self._lock:
            return await asyncio.to_thread(self._content, path)

    def _content(self, path: str) -> bytes | None:
        if path == INDEX:
            return msgspec.json.encode(self.index())
        number = path.removeprefix("pages/").removesuffix(".jsonl")
        if not number.isascii() or not number.isdigit() or page_path(int(number)) != path:
            return None
        return self.page(int(number)) or None


def write_files(publication: Publication, directory: Path) -> Index:
    """Mirror the publication into a directory that any web server can serve; whole pages are written once."""
    index = publication.index()
    (directory / "pages").mkdir(parents=True, exist_ok=True)
    for number in range(-(-index.records // PAGE_RECORDS)):
        path = directory / page_path(number)
        whole = (number + 1) * PAGE_RECORDS <= index.records
        if not (whole and path.exists() and path.read_bytes().count(b"\n") == PAGE_RECORDS):
            _replace(path, publication.page(number))
    _replace(directory / INDEX, msgspec.json.encode(index))
    return index


def read_published(source: PageSource, after: Head) -> Iterator[Record]:
    """The published records that follow on `after`. Raises JournalRefused for what is no publication of it.

    Hashes are as published: whoever appends the records to a journal checks them there.
    """
    index = read_index(source)
    if after.sequence > index.records:
        return
    for number in range(after.sequence // index.page_records, -(-index.records // index.page_records)):
        for line in _lines(source, number):
            if after.sequence < line.sequence <= index.records:
                yield Record(line.sequence, line.stamp_ms, line.payload.encode(), _bytes(line.hash))


def read_index(source: PageSource) -> Index:
    """The publication's index."""
    try:
        index = msgspec.json.decode(source.fetch(INDEX), type=Index)
    except msgspec.MsgspecError as error:
        raise JournalRefused(f"journal: the index is none: {error}") from None
    if index.page_records < 1 or index.records < 0:
        raise JournalRefused("journal: the index is none: a page holds nothing")
    return index


def _lines(source: PageSource, number: int) -> list[Line]:
    try:
        return _decoder.decode_lines(source.fetch(page_path(number)))
    except msgspec.MsgspecError as error:
        raise JournalRefused(f"journal: page {number} is none: {error}") from None


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise JournalRefused(f"journal: {text[:80]!r} is no hash") from None


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    os.replace(draft, path)
