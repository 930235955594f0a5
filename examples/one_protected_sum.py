"""One protected sum by the protocol package alone: five sites, one of them drops out.

Run it with ``.venv/bin/python examples/one_protected_sum.py``. Bytes go in and bytes come out; a
loop is the network. Tags show the sites that the server tells them the sum and nothing else.
"""

from __future__ import annotations

import hashlib
import secrets

import numpy as np

from fedbcs_protocols.binding import Binding
from fedbcs_protocols.identity import Identity
from fedbcs_protocols.ring import ring_bits
from fedbcs_protocols.secagg import (
    CombinerSession,
    Guard,
    MemoryMarks,
    NoJournal,
    Setting,
    SiteSession,
    Terms,
    open_sum,
)
from fedbcs_protocols.tags import Tagger, tagged_count

SITES = ("aachen", "bern", "cork", "delft", "evora")
STAGES = ("advertise", "share", "masked_input", "consistency", "unmask")
VALUES, BITS = 3, 16


def main() -> None:
    identities = {name: Identity.generate() for name in SITES}
    server = Identity.generate()
    setting = Setting(
        roster={name: identity.public for name, identity in identities.items()},
        combiner=server.public,
        # What is summed: any 32 bytes that all sites know name the study and the global state.
        binding=Binding(
            study_digest=hashlib.sha256(b"a study").digest(),
            round=0,
            attempt=0,
            phase=1,
            state_digest=hashlib.sha256(b"a model").digest(),
        ),
        terms=Terms(sites=5, threshold=4, colluders=1),
        bits=ring_bits(BITS, 5),
        count=tagged_count(VALUES, BITS),
    )
    # A key that the sites have and the server has not; in a study a site deals it.
    tagger = Tagger(secrets.token_bytes(32), epoch=1, binding=setting.binding, bits=BITS)
    # What each site's staff compared out of band.
    guard = Guard(frozenset(identity.public.fingerprint for identity in identities.values()))
    sites = {
        name: SiteSession(setting, identity=identity, name=name, guard=guard, marks=MemoryMarks())
        for name, identity in identities.items()
    }
    vectors = {name: np.full(VALUES, i, np.uint32) for i, name in enumerate(SITES, start=1)}

    combiner = CombinerSession(setting, identity=server, journal=NoJournal())
    for stage in STAGES:
        for name in combiner.expected:
            if name == "delft" and stage == "masked_input":
                continue  # it does not answer: from here on it has dropped out
            request = combiner.requests.get(name, b"")  # nothing is asked before *advertise*
            match stage:
                case "advertise":
                    frame = sites[name].advertise()
                case "share":
                    frame = sites[name].share(request)
                case "masked_input":
                    frame = sites[name].masked_input(request, tagger.tagged(vectors[name], name))
                case "consistency":
                    frame = sites[name].consistency(request)
                case _:
                    frame = sites[name].unmask(request)
            combiner.receive(frame, line=name)
        combiner.close()

    total = combiner.total()[:VALUES]
    print(f"server: the sum over {', '.join(combiner.survivors)} is {total}")
    for name in ("aachen", "delft"):
        signed = sites[name].transcript
        outcome = open_sum(combiner.sum_frame(), setting, {0: signed} if signed else {})
        # Raises BadTag for any other numbers.
        total = tagger.opened(outcome.total, VALUES, outcome.survivors)
        print(f"{name}: {total}, and {len(outcome.survivors)} sites are in it")


if __name__ == "__main__":
    main()
