"""Whether processes beside a site's own make encryption faster: an experiment, and only here.

Each worker makes the key from the group's secret, reads chunks with their tags from shared memory,
and writes ciphertexts there; the site's process forms the tags. The secret goes to a worker through
a pipe, which the package itself would not do.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckks_parts.world import BITS, World
from fedbcs_protocols.ckks.cipher import FRESH_BYTES, SecretContext
from fedbcs_protocols.ckks.packing import pack
from fedbcs_protocols.ckks.params import ParameterSet
from fedbcs_protocols.ckks.tagging import chunks_of, tagger_of
from fedbcs_protocols.ring import Words
from fedbcs_secure.federation.scratch import ScratchFile

_SITES = 4


@dataclass(frozen=True)
class _Job:
    """A worker's part: chunks ``first`` to ``last`` - 1 of what is in the two shared memories."""

    plain: str
    cipher: str
    first: int
    last: int
    params: ParameterSet
    secret: bytes
    study_digest: bytes
    epoch: int


@dataclass(frozen=True)
class _Costs:
    start_s: float
    wall_s: float
    cpu_s: float


def measure(count: int, numbers: Sequence[int], repeats: int) -> dict[str, float]:
    """Wall and CPU seconds of one encryption; 0 workers is the site's process alone.

    Without the signature, which no worker can help with. ``start`` is the time until all workers
    are ready, imports and key included.
    """
    world = World(_SITES, count)
    vector = np.random.default_rng(0).integers(0, 2**BITS - 1, count, dtype=np.uint32)
    figures: dict[str, float] = {}
    alone = [_alone(world, vector) for _ in range(repeats)]
    _report(figures, "workers_0", alone)
    for method in ("fork", "spawn"):
        for number in numbers:
            runs = [_with_workers(world, vector, number, method) for _ in range(repeats)]
            _report(figures, f"workers_{number}_{method}", runs)
    return figures


def _report(figures: dict[str, float], key: str, runs: list[_Costs]) -> None:
    ordered = sorted(runs, key=lambda run: run.wall_s)
    middle = ordered[len(ordered) // 2]
    figures[f"{key}_start_s"] = middle.start_s
    figures[f"{key}_wall_s"] = middle.wall_s
    figures[f"{key}_cpu_s"] = middle.cpu_s


def _alone(world: World, vector: Words) -> _Costs:
    wall = time.perf_counter()
    context = _context(_job(world, "", "", 0, 0))
    start_s = time.perf_counter() - wall
    wall, cpu = time.perf_counter(), time.process_time()
    body = bytearray()
    for chunk in _tagged_chunks(world, vector):
        body += context.encrypt(pack(chunk, world.setting.params))
    return _Costs(start_s, time.perf_counter() - wall, time.process_time() - cpu)


def _with_workers(world: World, vector: Words, number: int, method: str) -> _Costs:
    setting = world.setting
    capacity, chunks = setting.params.capacity, setting.chunks
    plain = SharedMemory(create=True, size=4 * capacity * chunks)
    cipher = SharedMemory(create=True, size=FRESH_BYTES * chunks)
    try:
        wall = time.perf_counter()
        ends = [chunks * i // number for i in range(number + 1)]
        jobs = [
            _job(world, plain.name, cipher.name, first, last)
            for first, last in itertools.pairwise(ends)
        ]
        workers = [_Worker(job, method) for job in jobs]
        for worker in workers:
            worker.receive()
        start_s = time.perf_counter() - wall
        wall, cpu = time.perf_counter(), time.process_time()
        _fill(plain, world, vector)
        for worker in workers:
            worker.line.send("go")
        spent = sum(worker.receive() for worker in workers)
        body = bytes(cipher.buf[: FRESH_BYTES * chunks])
        costs = _Costs(start_s, time.perf_counter() - wall, time.process_time() - cpu + spent)
        if len(body) != FRESH_BYTES * chunks:
            raise RuntimeError("ciphertexts are missing")
        for worker in workers:
            worker.process.join()
        return costs
    finally:
        for memory in (plain, cipher):
            memory.close()
            memory.unlink()


class _Worker:
    def __init__(self, job: _Job, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(job, theirs))
        self.process.start()
        theirs.close()

    def receive(self) -> float:
        return float(self.line.recv())


def _work(job: _Job, line: Connection) -> None:
    plain, cipher = SharedMemory(job.plain), SharedMemory(job.cipher)
    context = _context(job)
    line.send(0.0)
    line.recv()
    cpu = time.process_time()
    chunks = _chunks_in(plain, job.params)
    for index in range(job.first, job.last):
        at = index * FRESH_BYTES
        cipher.buf[at : at + FRESH_BYTES] = context.encrypt(pack(chunks[index], job.params))
    line.send(time.process_time() - cpu)
    del chunks
    plain.close()
    cipher.close()


def _fill(plain: SharedMemory, world: World, vector: Words) -> None:
    chunks = _chunks_in(plain, world.setting.params)
    for index, chunk in enumerate(_tagged_chunks(world, vector)):
        chunks[index] = chunk


def _chunks_in(plain: SharedMemory, params: ParameterSet) -> NDArray[np.uint32]:
    """(chunks, f·N) of the shared memory, which the system may have made longer."""
    rows = plain.size // (4 * params.capacity)
    flat = np.frombuffer(plain.buf, np.uint32, rows * params.capacity)
    return flat.reshape(rows, params.capacity)


def _tagged_chunks(world: World, vector: Words) -> Any:
    secret, epoch = world.secret()
    tagger = tagger_of(world.setting, secret, epoch)
    return chunks_of(vector, world.setting, tagger, world.names[0])


def _job(world: World, plain: str, cipher: str, first: int, last: int) -> _Job:
    secret, epoch = world.secret()
    setting = world.setting
    study = setting.binding.study_digest
    return _Job(plain, cipher, first, last, setting.params, secret, study, epoch)


def _context(job: _Job) -> SecretContext:
    context = SecretContext(job.params, ScratchFile(), job.secret, job.study_digest, job.epoch)
    # The first ciphertext also finds out how SEAL writes them.
    context.encrypt(pack(np.zeros(job.params.capacity, np.uint32), job.params))
    return context
