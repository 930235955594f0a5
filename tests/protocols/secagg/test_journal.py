from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protected_sum import make_cast

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.secagg import NoJournal
from fedbcs_protocols.secagg.journal import CLOSE, frame_in, frame_record


@given(st.binary(max_size=50))
def test_records(frame: bytes) -> None:
    held = frame_in(frame_record(frame))
    assert held is not None
    assert bytes(held) == frame
    assert frame_record(memoryview(frame)) != CLOSE


@pytest.mark.parametrize("record", [b"", b"X", b"Xframe", CLOSE + b"\0", CLOSE * 2])
def test_what_is_no_record(record: bytes) -> None:
    assert frame_in(CLOSE) is None
    with pytest.raises(LocalError, match="neither a frame nor the end"):
        frame_in(record)
    with pytest.raises(LocalError):
        make_cast(5).combine().restore([record])


def test_no_journal_keeps_nothing() -> None:
    journal = NoJournal()
    journal.append(b"record")
    journal.sync()
    assert not vars(journal)
