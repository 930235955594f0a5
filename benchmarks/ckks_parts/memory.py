"""Peak memory of one party, in a process of its own; the others are its children and end."""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ckks_parts.world import BITS, World, finish
from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.messages import Announced, agree_frame, transcript
from fedbcs_protocols.ckks.outcome import open_sum
from fedbcs_protocols.ring import Words
from fedbcs_protocols.wire import Kind, decode, seal
from fedbcs_secure.federation.scratch import ScratchFile

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
_SITES = 4
_MANY_SITES = 12


def measure(script: str, count: int) -> dict[str, float]:
    """Megabytes beyond what a process takes after its imports. Runs ``script --measure ...``."""

    def peak(party: str, sites: int) -> float:
        command = [sys.executable, script, "--measure", f"{party}:{sites}:{count}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.splitlines()[-1])

    encrypting, opening = peak("encrypting", _SITES), peak("opening", _SITES)
    return {
        "peak_site_mb": max(encrypting, opening),
        "peak_site_encrypting_mb": encrypting,
        "peak_site_opening_mb": opening,
        "peak_combiner_mb": peak("combiner", _SITES),
        f"peak_combiner_mb_n{_MANY_SITES}": peak("combiner", _MANY_SITES),
        "vector_mb": 4e-6 * count,
    }


def own_peak(what: str) -> float:
    """The growth of this process while it is the party that ``what`` says."""
    party, sites, count = what.split(":")
    world = World(int(sites), int(count))
    with tempfile.TemporaryDirectory() as folder:
        act = {"encrypting": _encrypting, "opening": _opening, "combiner": _combiner}[party]
        before = _peak_bytes(reset=True)
        act(world, Path(folder))
        return (_peak_bytes() - before) / 1e6


def _encrypting(world: World, folder: Path) -> None:
    world.session(world.names[0]).encrypt(_vector(world, 0))


def _opening(world: World, folder: Path) -> None:
    _elsewhere(lambda: _whole_sum(world, folder))
    name = world.names[0]
    outcome = open_sum(
        (folder / "sum").read_bytes(),
        world.setting,
        seen={0: (folder / "transcript").read_bytes()},
        keys=world.keys[name],
        scratch=ScratchFile(),
    )
    if len(outcome.survivors) != world.setting.sites:
        raise RuntimeError("a site is missing")


def _combiner(world: World, folder: Path) -> None:
    combiner = world.combiner()
    for place in range(world.setting.sites):
        _elsewhere(lambda place=place: _upload(world, place, folder))
        # One upload at a time, as over the network.
        combiner.receive((folder / "upload").read_bytes())
    combiner.close()
    for name, request in dict(combiner.requests).items():
        combiner.receive(_agreement(world, name, request))
    combiner.close()
    combiner.sum_frame()


def _vector(world: World, place: int) -> Words:
    random = np.random.default_rng(place)
    return random.integers(0, 2**BITS - 1, world.setting.count, dtype=np.uint32)


def _upload(world: World, place: int, folder: Path) -> None:
    frame = world.session(world.names[place]).encrypt(_vector(world, place))
    (folder / "upload").write_bytes(frame)


def _agreement(world: World, name: str, request: bytes) -> bytes:
    """The frame of a site whose session ended with its process."""
    setting = world.setting
    limits = {Kind.AGGREGATE: Announced.limit(setting.sites)}
    body = decode(request, limits).body
    announced = Announced.decode(body, sender=COMBINER, sites=setting.sites)
    frame = agree_frame(setting, name, transcript(setting, announced))
    return seal(frame, world.identities[name])


def _whole_sum(world: World, folder: Path) -> None:
    sessions = {name: world.session(name) for name in world.names}
    vectors = [_vector(world, place) for place in range(world.setting.sites)]
    combiner = world.combiner()
    for session, vector in zip(sessions.values(), vectors, strict=True):
        combiner.receive(session.encrypt(vector))
    combiner.close()
    (folder / "sum").write_bytes(finish(combiner, sessions))
    (folder / "transcript").write_bytes(sessions[world.names[0]].transcript or b"")


def _elsewhere(act: Callable[[], None]) -> None:
    """Run ``act`` in a forked process: it shares what was set up, and its memory goes with it."""
    child = multiprocessing.get_context("fork").Process(target=act)
    child.start()
    child.join()
    if child.exitcode != 0:
        raise RuntimeError("a party failed")


def _peak_bytes(*, reset: bool = False) -> int:
    """The largest resident set of this process so far, or since the last reset."""
    if not _STATUS.exists():
        # There is no reset, and on such systems (macOS) no process starts with its parent's peak.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
