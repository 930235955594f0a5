"""A masked vector that comes when its site was declared gone (SA-4.8)."""

from __future__ import annotations

import pytest
from hostile_combiner import HostileCombiner, OpenHost
from protected_sum import STAGES, make_cast
from thief import Thief

from fedbcs_protocols.errors import PeerError


def test_a_late_vector_stays_hidden(open_host: OpenHost) -> None:
    """site4 was declared gone, its vector comes all the same; everybody answers."""
    script = HostileCombiner(make_cast(6), open_host, colluders=["site5"])
    combiner = script.cast.combine()
    script.play("masked_input")
    late = script.ask("site4", "masked_input", script.delivery("site4"))
    script.gone["masked_input"].add("site4")
    script.play("finished", start="masked_input")
    for stage in STAGES:
        for frame in script.came[stage].values():
            combiner.receive(frame)
        if stage == "masked_input":
            combiner.close()
            with pytest.raises(PeerError) as caught:
                combiner.receive(late)
            # Not even of the kind that is taken now.
            assert (type(caught.value).__name__, caught.value.sender) in {
                ("UnexpectedFrame", "site4"),
                ("MalformedFrame", "unread frame"),
            }
            continue
        combiner.close()
    stayed = [name for name in script.cast.sites if name != "site4"]
    assert combiner.total().tolist() == sum(script.vectors[name] for name in stayed).tolist()

    # A combiner that cheats keeps the frame, all shares that were given, and the colluder's.
    thief = Thief(script)
    for name, answer in script.came["unmask"].items():
        thief.take(name, answer, stayed)
    script.came["masked_input"]["site4"] = late
    place = script.place("site4")
    assert list(thief.seeds[place]) == [script.place("site5")]
    assert thief.seed("site4") is None
    key = thief.key("site4")
    assert key is not None
    left = thief.without_pairs("site4", key)
    vector = script.vectors["site4"]
    assert left.tolist() != vector.tolist()
    # No value of 70 shows: what is left is under a mask of 20 bits a value.
    assert int((left == vector).sum()) <= 2
    assert int(left.max()) > int(vector.max())


def test_the_seed_of_a_late_vector_is_all_that_is_missing(open_host: OpenHost) -> None:
    """The control: with t shares of the seed the same computation reads the vector."""
    script = HostileCombiner(
        make_cast(6), open_host, colluders=["site1", "site2", "site3", "site5"]
    )
    script.play("masked_input")
    late = script.ask("site4", "masked_input", script.delivery("site4"))
    script.gone["masked_input"].add("site4")
    script.play("consistency", start="masked_input")
    script.came["masked_input"]["site4"] = late
    thief = Thief(script)
    key, seed = thief.key("site4"), thief.seed("site4")
    assert key is not None
    assert seed is not None
    read = thief.without_self("site4", thief.without_pairs("site4", key), seed)
    assert read.tolist() == script.vectors["site4"].tolist()
