"""Seeds by purpose."""

from segdistill.seeds import stream_seed


def test_the_value_never_changes() -> None:
    """Another value would give every old configuration other weights."""
    # sha256("0/primary"), the first 8 bytes, without the lowest bit
    assert stream_seed(0, "primary") == 0x8DF966F21BBAE1A7 >> 1
    assert stream_seed(7, "step", 12, 0) == 0x461DB89BA640A0F1 >> 1


def test_fits_torch() -> None:
    seeds = [stream_seed(seed, "a") for seed in range(500)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # and uses the room


def test_distinct_by_seed_name_and_number() -> None:
    keys = [(0,), (1,), (0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, 1, "a"), (0, "a", 1, 0)]
    keys += [(0, "step", step, rank) for step in range(200) for rank in range(3)]
    assert len({stream_seed(*key) for key in keys}) == len(keys)


def test_numbers_do_not_run_together() -> None:
    assert stream_seed(0, 1, 23) != stream_seed(0, 12, 3)
    assert stream_seed(1, 1) != stream_seed(11)
