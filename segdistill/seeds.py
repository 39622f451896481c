"""Independent random streams out of one seed."""

import hashlib


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named purpose, e.g. `stream_seed(0, "branches")`.

    What one purpose draws cannot shift what another one gets: the primary's first weights are the same
    with and without branches.
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
