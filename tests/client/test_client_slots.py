"""Slots, sequences and the chain's time, which a person never sees."""

from evermark.client.slots import ChainClock, SlotAllocator


def test_lowest_free_slot() -> None:
    """Slots are given from the lowest on and come back when their order has ended."""
    slots = SlotAllocator()
    assert [slots.take() for _ in range(3)] == [1, 2, 3]
    for slot in (1, 2, 3):
        slots.answered(slot, is_open=slot != 2)
    assert [slots.take(), slots.take()] == [2, 4]


def test_refresh_keeps_orders_under_way() -> None:
    """The exchange's list replaces what was believed, except for an order that has no answer yet."""
    slots = SlotAllocator()
    assert slots.wants_refresh
    slots.refresh([5])
    assert not slots.wants_refresh
    under_way = slots.take()
    slots.refresh([2])
    assert (under_way, slots.take(), slots.take()) == (1, 3, 4)


def test_sequences_grow_and_follow_the_chain() -> None:
    """Sequences are chain milliseconds and strictly grow, also within one millisecond and above a known
    one.
    """
    clock = ChainClock()
    clock.heard(1_760_000_000_000)
    first, second = clock.next_sequence(), clock.next_sequence()
    assert 1_760_000_000_000 <= first < second < 1_760_000_010_000
    assert clock.next_sequence(above=1_760_000_500_000) == 1_760_000_500_001


def test_clock_ignores_older_times() -> None:
    """Time does not go back when answers overtake one another."""
    clock = ChainClock()
    clock.heard(2_000_000)
    clock.heard(1_000_000)
    assert clock.now_s() >= 2_000
