"""Reads what an offline W&B run wrote: its file is a log of protocol buffers in blocks, as LevelDB writes them."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, FILE_HEAD, HEAD = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def record_bytes(path: Path) -> Iterator[bytes]:
    """The records of a `.wandb` file: each whole, or in parts of which none crosses the end of a block."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, parts = FILE_HEAD, b""
    while at + HEAD <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEAD:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEAD])
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        parts += content[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def read(folder: Path, patience_s: float = 60.0) -> list[Any]:
    """All records of the only run below `folder/wandb`; its writer, another process, may still be at the end of it."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    begin = time.monotonic()
    while True:
        records = _parsed(path)
        if of_kind(records, "exit") or time.monotonic() - begin > patience_s:
            return records
        time.sleep(0.05)


def _parsed(path: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2 as pb

    records = []
    for raw in record_bytes(path):
        record = pb.Record()
        record.ParseFromString(raw)
        records.append(record)
    return records


def of_kind(records: list[Any], kind: str) -> list[Any]:
    """The contents of the records of one kind, such as `run`, `history`, `summary` or `artifact`."""
    return [getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind]


def logged(records: list[Any]) -> dict[str, Any]:
    """The last value of every key of the history."""
    found = {}
    for history in of_kind(records, "history"):
        for item in history.item:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found
