"""What is counted of a desired version: its first call, and its end; each once, and from the delivery on."""

from schemas.saga import Phase
from services.core.saga.milestones import phase_began_us
from services.core.saga.next_move import Plans
from tests.support.saga_world import PLAN_TEXT, STEPS, DesiredVersions, MemoryRunner, Mode, OutsideSystems, plan

HOUR_US = 3_600 * 10**6
DAY_US = 24 * HOUR_US


def since(worker: MemoryRunner) -> list[tuple[str, int]]:
    return [(end.direction.value, end.since_us) for end in worker.converged]


def test_each_version_is_counted_once_from_its_delivery_to_its_end() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    first = versions.installed()
    worker = MemoryRunner(world, first)
    worker.run()
    second, third = versions.configured(size="2"), versions.uninstalled()
    worker.run([(0, second)])
    worker.run([(0, third)])
    times = [version.received_at for version in (first, second, third)]
    assert since(worker) == list(zip(("up", "up", "down"), times, strict=True))
    assert [end.at_us for end in worker.converged] == [said.at for said in worker.outcomes if said.state == "done"]
    assert worker.first_calls == [1, 2, 3]


def test_a_version_that_needs_no_call_ends_without_a_first_call() -> None:
    versions = DesiredVersions()
    worker = MemoryRunner(OutsideSystems(), versions.installed())
    worker.run()
    worker.run([(0, versions.configured(unused="x"))])
    assert len(worker.converged) == 2
    assert worker.first_calls == [1]


def test_a_call_after_a_wait_at_an_open_circuit_counts_as_the_first_call() -> None:
    worker = MemoryRunner(OutsideSystems(), DesiredVersions().installed(), bars=[True, True, False])
    worker.run()
    assert worker.first_calls == [1]


def test_a_retried_step_is_not_counted_again() -> None:
    worker = MemoryRunner(
        OutsideSystems(modes=[Mode.RETRYABLE, Mode.SILENT, Mode.LOST_WITHOUT]), DesiredVersions().installed()
    )
    worker.run()
    assert (worker.first_calls, len(worker.converged)) == ([1], 1)


def test_a_rolled_back_version_converges_late_and_once() -> None:
    versions = DesiredVersions()
    wanted = versions.installed()
    worker = MemoryRunner(OutsideSystems(modes=[Mode.WELL, Mode.REFUSED]), wanted, again=True)
    worker.run()
    assert [said.state.value for said in worker.outcomes if said.state in {"done", "rolled_back"}] == [
        "rolled_back",
        "done",
    ]
    assert worker.first_calls == [1]
    ((_, since_us),) = since(worker)
    assert since_us == wanted.received_at
    assert worker.converged[0].at_us - since_us > HOUR_US


def test_an_operators_retry_is_not_counted_as_a_first_call() -> None:
    worker = MemoryRunner(OutsideSystems(modes=[Mode.WELL, Mode.REFUSED]), DesiredVersions().installed())
    worker.run()
    worker.retries_before = frozenset({worker.marks})
    worker.run()
    assert worker.last.state.value == "done"
    assert (worker.first_calls, len(worker.converged)) == ([1], 1)


def test_a_refused_update_does_not_count_as_converged() -> None:
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed())
    worker.run()
    worker.run([(0, versions.configured(bad="schema"))])
    assert worker.last.reason == "update_refused"
    assert (len(worker.converged), worker.first_calls) == (1, [1, 2])


def test_a_grace_period_is_left_out_of_the_time_of_a_removal() -> None:
    kept = PLAN_TEXT.replace('name = "schema"\n', 'name = "schema"\ndestroy_after = "P1D"\n')
    versions = DesiredVersions()
    worker = MemoryRunner(OutsideSystems(), versions.installed(), plans=Plans(plan(kept)))
    worker.run()
    wanted = versions.uninstalled()
    began_us = worker.now_us
    worker.run([(0, wanted)])
    end = worker.converged[-1]
    assert end.direction.value == "down"
    assert began_us + DAY_US <= end.since_us <= end.at_us < end.since_us + HOUR_US
    assert worker.first_calls == [1, 2]


def test_a_version_of_an_earlier_release_has_no_milestone() -> None:
    worker = MemoryRunner(OutsideSystems(), DesiredVersions().installed().model_copy(update={"received_at": None}))
    worker.run()
    assert (worker.first_calls, worker.converged) == ([], [])
    assert worker.last.state.value == "done"
    assert len(worker.world.calls) == len(STEPS)


def test_a_saga_at_rest_is_in_no_phase_that_began() -> None:
    """A version without a call ends in the turn that begins it: its length is not the time since the last end."""
    worker = MemoryRunner(OutsideSystems(), DesiredVersions().installed())
    worker.run()
    assert worker.journal.phase is Phase.ACTIVE
    assert phase_began_us(worker.journal) == 0 < worker.journal.phase_began_at
    changing = worker.journal.model_copy(update={"phase": Phase.UPDATING})
    assert phase_began_us(changing) == worker.journal.phase_began_at
