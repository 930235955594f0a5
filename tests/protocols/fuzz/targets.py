"""What is fuzzed: every function of the protocols that takes bytes from outside.

A target runs one of them on any bytes. Only the errors that the function names may come out, and
what a decoder takes, its encoder must write again byte for byte. Anything else is a finding.
``fuzz.py`` feeds them with atheris, ``test_fuzz_corpus.py`` with a fixed corpus.

``harness`` what a target is · ``decoders`` one decoder each, listed in ``one_each`` · ``worlds``
genuine sums and ways to change their frames · ``site_session``, ``combiner_session`` whole sessions
on such frames, listed in ``sessions`` · ``encrypted`` what an encrypted sum carries, of the one in
``encrypted_world``.
"""

from __future__ import annotations

from encrypted import CIPHERTEXTS, ENCRYPTED
from one_each import ONE_EACH
from sessions import SESSIONS

TARGETS = ONE_EACH + ENCRYPTED + CIPHERTEXTS + SESSIONS
