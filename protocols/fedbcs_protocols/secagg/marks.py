"""What a site never forgets: how far it went, and which states it has answered for (SA-8).

:class:`Marks` is a value; keeping it on durable storage is the :class:`MarkKeeper`'s business.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import Protocol

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.errors import LocalError, Refused

MAX_ATTEMPTS = 16
"""Attempts in a round that a site takes part in."""

_MAGIC = b"FBMK"
_VERSION = 1
_HEAD = struct.Struct(">4sB32sIHB32sBH")
_ANSWER = struct.Struct(">BHH32s")
_MAX_ANSWERS = 255
_MAX_SURVIVORS_BYTES = 128
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Answer:
    """The last *unmask* of a phase: its attempt, how many there were, and its transcript."""

    phase: int
    attempt: int
    times: int
    transcript: bytes


@dataclass(frozen=True)
class Marks:
    """A site's marks in one study.

    ``binding`` is that of the last *advertise*; ``answers`` are those for its state, one a phase;
    ``survivors`` is the set of sites (SA-1.5) in the last sum that was answered, empty at first.
    """

    binding: Binding
    answers: tuple[Answer, ...] = ()
    survivors: bytes = b""

    def answer(self, binding: Binding) -> Answer | None:
        """The answer that was given for the state and phase of ``binding``, if any."""
        if self.binding.state_digest != binding.state_digest:
            return None
        return next((a for a in self.answers if a.phase == binding.phase), None)

    def answered(
        self, binding: Binding, transcript: bytes, survivors: bytes, max_reused_states: int
    ) -> Marks:
        """The marks to write before *unmask* (SA-8.2). Raises :class:`Refused`."""
        if binding != self.binding:
            raise Refused("this site has gone on from the attempt that it is asked to answer for")
        before = self.answer(binding)
        _check_reuse(before, max_reused_states)
        times = before.times + 1 if before else 1
        given = Answer(binding.phase, binding.attempt, times, transcript)
        others = tuple(a for a in self.answers if a.phase != binding.phase)
        if len(others) >= _MAX_ANSWERS:
            raise LocalError(f"a state with more than {_MAX_ANSWERS} sums")
        return replace(self, answers=(*others, given), survivors=survivors)

    def encode(self) -> bytes:
        """The canonical bytes."""
        b = self.binding
        head = _HEAD.pack(
            _MAGIC, _VERSION, b.study_digest, b.round, b.attempt, b.phase, b.state_digest,
            len(self.answers), len(self.survivors),
        )  # fmt: skip
        answers = (_ANSWER.pack(a.phase, a.attempt, a.times, a.transcript) for a in self.answers)
        data = b"".join((head, *answers, self.survivors))
        return data + hashlib.sha256(data).digest()

    @classmethod
    def decode(cls, data: bytes) -> Marks:
        """The inverse of :meth:`encode`. Raises :class:`LocalError` for any other bytes.

        The digest at the end finds damage; whoever can write the file can write it too.
        """
        data, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if len(data) < _HEAD.size or hashlib.sha256(data).digest() != digest:
            raise LocalError("these are no marks, or damaged ones")
        magic, version, study, round_, attempt, phase, state, count, width = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != _VERSION or width > _MAX_SURVIVORS_BYTES:
            raise LocalError(f"these are no version {_VERSION} marks")
        end = _HEAD.size + count * _ANSWER.size
        if len(data) != end + width:
            raise LocalError("these are no marks: of another length than they say")
        answers = tuple(
            Answer(*_ANSWER.unpack_from(data, at)) for at in range(_HEAD.size, end, _ANSWER.size)
        )
        if any(a.times < 1 for a in answers) or len({a.phase for a in answers}) < count:
            raise LocalError("these are no marks: an answer that was never given, or given twice")
        return cls(Binding(study, round_, attempt, phase, state), answers, data[end:])


def advertising(marks: Marks | None, binding: Binding, max_reused_states: int) -> Marks:
    """The marks to write before *advertise* (SA-8.1). Raises :class:`Refused`.

    ``marks`` is what the site has written so far, None before its first sum of the study.
    """
    # A new attempt has new draws (SA-9): a server must not have as many as it likes.
    if binding.attempt >= MAX_ATTEMPTS:
        raise Refused(f"more than {MAX_ATTEMPTS} attempts at round {binding.round}")
    if marks is None:
        return Marks(binding)
    last = marks.binding
    if last.study_digest != binding.study_digest:
        raise LocalError("these marks are another study's")
    step = (binding.round, binding.attempt, binding.phase)
    if step <= (last.round, last.attempt, last.phase):
        raise Refused(
            f"round {binding.round}, attempt {binding.attempt}, phase {binding.phase} is not after "
            f"round {last.round}, attempt {last.attempt}, phase {last.phase}, which this site "
            "has advertised already"
        )
    if binding.round == last.round and binding.state_digest != last.state_digest:
        raise Refused(f"round {binding.round} was begun from another global state")
    _check_reuse(marks.answer(binding), max_reused_states)
    answers = marks.answers if binding.state_digest == last.state_digest else ()
    return replace(marks, binding=binding, answers=answers)


def _check_reuse(answer: Answer | None, max_reused_states: int) -> None:
    if answer is not None and answer.times > max_reused_states:
        raise Refused(
            f"this site has answered {answer.times} time(s) for this state and phase; a second sum "
            "over other sites could give one site away by subtraction"
        )


class MarkKeeper(Protocol):
    """Where a site keeps the marks of one study."""

    def read(self) -> Marks | None:
        """What was written last; None if nothing ever was."""
        ...

    def write(self, marks: Marks) -> None:
        """Replace it; on durable storage when this returns."""
        ...


class MemoryMarks:
    """Forgets when the process ends: for tests and for simulations, which play all sites."""

    def __init__(self) -> None:
        self._marks: Marks | None = None

    def read(self) -> Marks | None:
        return self._marks

    def write(self, marks: Marks) -> None:
        self._marks = marks
