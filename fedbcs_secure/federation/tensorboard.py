"""Event files for TensorBoard, on request (extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbcs_secure.errors import FedBCSError


def write_scalars(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append one round's losses and validation Dice, a tag a site.

    Raises :class:`FedBCSError` when TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise FedBCSError(
            "--tensorboard needs the extra: pip install 'fedbcs-secure[tensorboard]'"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(folder), filename_suffix=f".round{rows[0]['round']}")
    for row in rows:
        for key in ("loss", "validation_dice"):
            if row[key] is not None:
                value = Summary.Value(tag=f"{key}/{row['site']}", simple_value=float(row[key]))
                writer.add_event(Event(step=row["round"] + 1, summary=Summary(value=[value])))
    writer.close()
