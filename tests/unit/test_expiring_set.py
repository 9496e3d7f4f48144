"""The set of recent deliveries is bounded in size and time."""

from services.ingress.recent import ExpiringSet


def test_an_element_is_known_until_its_time_is_over() -> None:
    memory = ExpiringSet(most=10, within_us=100)
    memory.add("a", 0)
    assert memory.knows("a", 99)
    assert not memory.knows("a", 100)
    assert len(memory) == 0


def test_adding_an_element_again_renews_it() -> None:
    memory = ExpiringSet(most=10, within_us=100)
    memory.add("a", 0)
    memory.add("b", 50)
    memory.add("a", 60)
    assert memory.knows("a", 155)
    assert not memory.knows("b", 155)


def test_the_oldest_element_is_dropped_beyond_the_limit() -> None:
    memory = ExpiringSet(most=2, within_us=100)
    for at_us, thing in enumerate("aba"):
        memory.add(thing, at_us)
    assert memory.full
    memory.add("c", 4)
    assert [memory.knows(thing, 4) for thing in "abc"] == [True, False, True]


def test_a_discarded_element_is_unknown() -> None:
    memory = ExpiringSet(most=2, within_us=100)
    memory.add("a", 0)
    memory.discard("a")
    memory.discard("a")
    assert not memory.knows("a", 1)


def test_elements_added_after_a_pause_expire_in_their_own_time() -> None:
    memory = ExpiringSet(most=10, within_us=100)
    assert not memory.knows("a", 1_000)
    memory.add("a", 1_050)
    memory.add("b", 1_080)
    assert [memory.knows("a", 1_149), memory.knows("a", 1_150), memory.knows("b", 1_179)] == [True, False, True]
    assert not memory.knows("b", 1_180)
