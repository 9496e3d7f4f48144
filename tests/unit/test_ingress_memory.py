"""What a process remembers is bounded in size and time."""

from services.ingress.memory import Recently


def test_a_thing_is_known_until_its_time_is_over() -> None:
    memory = Recently(most=10, within_us=100)
    memory.add("a", 0)
    memory.forget(99)
    assert "a" in memory
    memory.forget(100)
    assert "a" not in memory
    assert len(memory) == 0


def test_happening_again_renews_it() -> None:
    memory = Recently(most=10, within_us=100)
    memory.add("a", 0)
    memory.add("b", 50)
    memory.add("a", 60)
    memory.forget(155)
    assert "a" in memory
    assert "b" not in memory


def test_of_too_many_the_longest_untouched_goes() -> None:
    memory = Recently(most=2, within_us=100)
    for at_us, thing in enumerate("aba"):
        memory.add(thing, at_us)
    assert memory.full
    memory.add("c", 4)
    assert ["a" in memory, "b" in memory, "c" in memory] == [True, False, True]


def test_what_did_not_happen_is_unknown() -> None:
    memory = Recently(most=2, within_us=100)
    memory.add("a", 0)
    memory.discard("a")
    memory.discard("a")
    assert "a" not in memory
