"""SQLite's disk under observation: a VFS that notes every write, sync and truncation that SQLite makes, and fails
one of them on demand.

From the notes of a run follow the files as any crash would have left them: `killed` keeps everything that was
written until then, `powerless` only what was synced, and of the rest whatever a disk may have got done.
"""

import _sqlite3
import ctypes
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

SECTOR = 512
FULL, IO_ERROR_WRITE, IO_ERROR_SYNC = 13, 778, 1034

Pointer, Int, Long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
OPEN = ctypes.CFUNCTYPE(Int, Pointer, Pointer, Pointer, Int, Pointer)
DELETE = ctypes.CFUNCTYPE(Int, Pointer, ctypes.c_char_p, Int)
WRITE = ctypes.CFUNCTYPE(Int, Pointer, Pointer, Int, Long)
TRUNCATE = ctypes.CFUNCTYPE(Int, Pointer, Long)
SYNC = ctypes.CFUNCTYPE(Int, Pointer, Int)


_shims: list[object] = []  # never freed: a connection that a failing test leaves open still calls its VFS


class Vfs(ctypes.Structure):
    """sqlite3_vfs up to what is replaced here; the tail is copied as it is."""

    _fields_ = [
        ("version", Int), ("file_bytes", Int), ("path_bytes", Int),
        ("next", Pointer), ("name", ctypes.c_char_p), ("data", Pointer),
        ("open", Pointer), ("delete", Pointer), ("tail", Pointer * 14),
    ]  # fmt: skip


class Methods(ctypes.Structure):
    """sqlite3_io_methods."""

    _fields_ = [
        ("version", Int), ("close", Pointer), ("read", Pointer), ("write", Pointer),
        ("truncate", Pointer), ("sync", Pointer), ("tail", Pointer * 13),
    ]  # fmt: skip


class Operation(msgspec.Struct, frozen=True):
    """What SQLite did to a file; or, with kind "mark", what the test did at this moment."""

    kind: str  # write, sync, truncate, delete, mark
    file: str
    offset: int = 0
    data: bytes = b""


class RecordingDisk:
    """The notes. `fail_at` is the number of the operation (from 1, marks not counted) that fails with `error`."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.count = 0
        self.fail_at = 0
        self.error = 0

    def mark(self, value: int) -> None:
        self.operations.append(Operation("mark", "", value))

    def note(self, operation: Operation) -> int:
        """An error code, 0 to go on."""
        self.count += 1
        if self.count == self.fail_at:
            return self.error
        self.operations.append(operation)
        return 0


@contextmanager
def recording_disk() -> Iterator[RecordingDisk]:
    """Every SQLite connection opened within works on the observed disk; close them before leaving."""
    library = ctypes.CDLL(_sqlite3.__file__)
    if not hasattr(library, "sqlite3_vfs_find"):
        pytest.skip("this Python has SQLite built in, and its functions cannot be reached")
    library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
    original = library.sqlite3_vfs_find(None)
    disk = RecordingDisk()
    shim = _shim(original, disk)
    _shims.append(shim)
    library.sqlite3_vfs_register(ctypes.byref(shim), 1)
    try:
        yield disk
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(shim))
        library.sqlite3_vfs_register(original, 1)


def _shim(original: "ctypes._Pointer[Vfs]", disk: RecordingDisk) -> Vfs:
    shim = Vfs.from_buffer_copy(original.contents)
    shim.name = b"recording"
    real_open, real_delete = OPEN(original.contents.open), DELETE(original.contents.delete)
    files: dict[int, str] = {}
    tables: dict[int, Methods] = {}
    kept: list[object] = []  # callbacks must outlive the connections

    def open_(vfs: int, path: int, file: int, flags: int, out: int) -> int:
        code = real_open(vfs, path, file, flags, out)
        methods = ctypes.cast(file, ctypes.POINTER(Pointer))
        if code == 0 and path and methods[0]:
            files[file] = Path(ctypes.string_at(path).decode()).name
            if methods[0] not in tables:
                tables[methods[0]] = _methods(methods[0], files, disk, kept)
            methods[0] = ctypes.addressof(tables[methods[0]])
        return code

    def delete(vfs: int, path: bytes, sync: int) -> int:
        return disk.note(Operation("delete", Path(path.decode()).name)) or real_delete(vfs, path, sync)

    callbacks = (OPEN(open_), DELETE(delete))
    kept.extend(callbacks)
    shim.open, shim.delete = (ctypes.cast(callback, Pointer).value for callback in callbacks)
    shim.kept = kept  # type: ignore[attr-defined]
    return shim


def _methods(address: int, files: dict[int, str], disk: RecordingDisk, kept: list[object]) -> Methods:
    table = Methods.from_buffer_copy(Methods.from_address(address))
    real_write, real_truncate, real_sync = WRITE(table.write), TRUNCATE(table.truncate), SYNC(table.sync)

    def write(file: int, data: int, size: int, offset: int) -> int:
        operation = Operation("write", files[file], offset, ctypes.string_at(data, size))
        return disk.note(operation) or real_write(file, data, size, offset)

    def truncate(file: int, size: int) -> int:
        return disk.note(Operation("truncate", files[file], size)) or real_truncate(file, size)

    def sync(file: int, flags: int) -> int:
        return disk.note(Operation("sync", files[file])) or real_sync(file, flags)

    callbacks = (WRITE(write), TRUNCATE(truncate), SYNC(sync))
    kept.extend(callbacks)
    table.write, table.truncate, table.sync = (ctypes.cast(one, Pointer).value for one in callbacks)
    return table


def killed(operations: Sequence[Operation]) -> dict[str, bytes]:
    """The files when the process dies after `operations`."""
    files: dict[str, bytearray] = {}
    for operation in operations:
        _apply(files, operation)
    return {name: bytes(content) for name, content in files.items()}


def powerless(operations: Sequence[Operation], chance: random.Random, kept: float) -> dict[str, bytes]:
    """The files when the power fails after `operations`: everything before each file's last sync, and of what
    follows each sector with probability `kept`."""
    synced = {operation.file: at for at, operation in enumerate(operations) if operation.kind == "sync"}
    files: dict[str, bytearray] = {}
    for at, operation in enumerate(operations):
        if at < synced.get(operation.file, -1) or operation.kind != "write":
            _apply(files, operation)
            continue
        for start in range(0, len(operation.data), SECTOR):
            if chance.random() < kept:
                part = operation.data[start : start + SECTOR]
                _apply(files, Operation("write", operation.file, operation.offset + start, part))
    return {name: bytes(content) for name, content in files.items()}


def _apply(files: dict[str, bytearray], operation: Operation) -> None:
    if operation.kind in ("mark", "sync"):
        return
    if operation.kind == "delete":
        files.pop(operation.file, None)
        return
    content = files.setdefault(operation.file, bytearray())
    if operation.kind == "truncate":
        del content[operation.offset :]
        return
    end = operation.offset + len(operation.data)
    content.extend(bytes(max(0, end - len(content))))
    content[operation.offset : end] = operation.data
