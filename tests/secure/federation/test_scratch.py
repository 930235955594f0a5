"""Files in memory, through which secrets go to SEAL (CK-6.6): what is left of them, and where."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from federation_fixtures import ANYTHING
from federation_world import PROTECTIONS, world

from fedbcs_protocols.errors import LocalError
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.federation.scratch import ScratchFile


def test_what_was_written_last_is_the_whole_content() -> None:
    scratch = ScratchFile()
    for data in (b"", b"long " * 40_000, b"short", b"short", memoryview(b"other"), b""):
        scratch.write(data)
        assert scratch.read() == bytes(data)
        assert Path(scratch.path).read_bytes() == bytes(data)


def test_what_a_library_writes_is_read() -> None:
    scratch = ScratchFile()
    scratch.write(b"before it")
    Path(scratch.path).write_bytes(b"by path")
    assert scratch.read() == b"by path"


def test_it_is_in_no_folder_and_no_other_program_gets_it() -> None:
    scratch = ScratchFile()
    assert scratch.path.startswith("/proc/self/fd/")
    assert str(Path(scratch.path).readlink()).startswith("/memfd:")
    descriptor = int(Path(scratch.path).name)
    assert os.fstat(descriptor).st_nlink == 0
    assert not os.get_inheritable(descriptor)


def test_each_has_its_own() -> None:
    one, other = ScratchFile(), ScratchFile()
    one.write(b"one")
    other.write(b"other")
    assert (one.read(), other.read()) == (b"one", b"other")


def test_it_is_gone_with_the_object() -> None:
    scratch = ScratchFile()
    path = Path(scratch.path)
    scratch.write(b"something")
    before = path.readlink(), path.stat().st_ino
    del scratch
    gc.collect()
    # The number of the descriptor may be another file's by now.
    if os.path.lexists(path):
        assert (path.readlink(), path.stat().st_ino) != before


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_without_such_files_no_site_begins_an_encrypted_study(
    protection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on a disk instead: an upload's secret is in it. Other protections need none."""
    monkeypatch.delattr(os, "memfd_create")
    if protection == "ckks":
        with pytest.raises(LocalError, match="files in memory, which Linux has: use secagg"):
            world(**PROTECTIONS[protection])
    else:
        assert world(**PROTECTIONS[protection]).round().survivors == tuple("ABCD")


def test_it_is_empty_whenever_a_site_has_answered() -> None:
    """CK-6.6: after an upload, and after a sum that was decrypted."""
    w, seen = world(protection="ckks"), []

    class Looking:
        def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
            for name, reply in w.lines.exchange(requests):
                scratch = w.lines.sites[name]._sum._scratch  # type: ignore[union-attr]
                kind = decode(reply, ANYTHING).kind
                if kind in (Kind.ENCRYPTED, Kind.CONSISTENCY, Kind.ACCEPTED):
                    seen.append((name, kind, scratch.read()))
                yield name, reply

    w.combiner.run(Looking(), w.state)
    assert len(seen) == 12
    assert [which for which in seen if which[2]] == []
