"""The protocols by which sites add up numbers that nobody else may read.

Who lives here, each module importing only those to its left::

    errors ← binding ← identity ← derive ← ring ← codec
                     ← wire ← sitesets ← messages ← secagg

``errors``    what can go wrong, on this side or on the other
``binding``   which sum a message belongs to: study, round, attempt, phase, state
``identity``  Ed25519: who signed
``derive``    keys for one purpose each; public streams of reproducible random words
``ring``      vectors modulo 2^m, m bits a value on the wire
``codec``     float32 to integers and back, exactly reproducible
``wire``      signed frames: bytes in, checked values out
``sitesets``  sets of sites as bits
``messages``  vectors that frames carry
``secagg``    the protected sum: a session for a site, a session for the combiner

May be imported here: the standard library's pure parts, numpy, cryptography. No torch, no medicine,
no files, no sockets, no clock: bytes come in, bytes go out, and the caller moves them.
"""
