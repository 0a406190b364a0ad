"""The chunk schedule: which stage every epoch is in, for given losses."""

import math
from itertools import groupby, pairwise

import numpy as np
import pytest

from tbptt.training.schedule import ChunkSchedule, chunk_bounds, geometric_chunks

NAN = math.nan


def stages_of(schedule: ChunkSchedule, losses: list[float]) -> list[int]:
    """The stage of every epoch, until the losses or the schedule end."""
    seen = []
    for loss in losses:
        seen.append(schedule.stage)
        before = schedule.stage
        ended = schedule.end_epoch(loss)
        assert ended == (schedule.stage != before or schedule.done)
        if schedule.done:
            break
    return seen


def falling(epochs: int) -> list[float]:
    return [1 / (1 + n) for n in range(epochs)]


# --- cutting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "chunks"),
    [(1, 1), (7, 7), (7, 6), (10, 3), (100, 99), (97, 10), (20000, 100), (20001, 100), (19999, 7), (101, 50), (5, 1)],
)
def test_chunks_cover_every_step_once_as_array_split_does(length: int, chunks: int) -> None:
    bounds = chunk_bounds(length, chunks)
    expected = np.array_split(np.arange(length), chunks)
    assert len(bounds) == chunks
    assert [list(range(a, b)) for a, b in bounds] == [piece.tolist() for piece in expected]
    assert sorted(t for a, b in bounds for t in range(a, b)) == list(range(length))
    assert len({b - a for a, b in bounds}) <= 2


@pytest.mark.parametrize(("length", "chunks"), [(5, 6), (5, 0), (5, -1), (0, 1)])
def test_impossible_cuts_are_refused(length: int, chunks: int) -> None:
    with pytest.raises(ValueError, match=f"{length} steps cannot be cut into {chunks} chunks"):
        chunk_bounds(length, chunks)


# --- stages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "stages"),
    [
        # best, one above it, one above it: the second epoch without a new best ends the stage
        ([1.0, 2.0, 2.0, 9.0], [0, 0, 0, 1]),
        # an equal loss is not strictly below
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 1]),
        # a new best begins the count again
        ([1.0, 2.0, 0.5, 0.6, 0.6, 9.0], [0, 0, 0, 0, 0, 1]),
        ([1.0, 2.0, 0.999999, 2.0, 0.999998, 2.0], [0, 0, 0, 0, 0, 0]),
        # a stage has its own best: 5 is worse than all before, and still a best
        ([1.0, 2.0, 2.0, 5.0, 4.0, 3.0, 2.0, 1.5], [0, 0, 0, 1, 1, 1, 1, 1]),
        # and its own count
        ([1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 1.0], [0, 0, 0, 1, 1, 1, 2]),
        # below the stage's best, not below the loss before
        ([1.0, 3.0, 2.0, 9.0], [0, 0, 0, 1]),
    ],
)
def test_patience_ends_a_stage_without_a_strictly_new_best(losses: list[float], stages: list[int]) -> None:
    assert stages_of(ChunkSchedule([100, 10, 1], patience=2), losses) == stages


def test_last_stages_patience_ends_training() -> None:
    schedule = ChunkSchedule([10, 1], patience=2)
    assert stages_of(schedule, [1.0] * 20) == [0, 0, 0, 1, 1, 1]
    assert schedule.done


def test_a_single_stage_ends_by_its_patience() -> None:
    schedule = ChunkSchedule([1], patience=3)
    assert stages_of(schedule, [2.0, 1.0, 1.5, 1.5, 1.5, 0.1]) == [0] * 5
    assert schedule.done


def test_default_patience_is_twenty_epochs() -> None:
    assert stages_of(ChunkSchedule([2, 1]), [1.0] * 50) == [0] * 21 + [1] * 21


def test_without_patience_no_loss_ends_a_stage() -> None:
    schedule = ChunkSchedule([10, 1], patience=None)
    assert stages_of(schedule, [1.0] * 200) == [0] * 200
    assert not schedule.done


def test_stage_epochs_end_all_stages_but_the_last() -> None:
    schedule = ChunkSchedule([100, 10, 1], patience=None, stage_epochs=3)
    assert stages_of(schedule, falling(40)) == [0] * 3 + [1] * 3 + [2] * 34
    assert not schedule.done


def test_stage_ends_by_patience_or_epochs_whichever_is_first() -> None:
    schedule = ChunkSchedule([100, 10, 1], patience=2, stage_epochs=4)
    losses = [1.0, 1.0, 1.0, *falling(4), *falling(6), 1.0, 1.0]
    assert stages_of(schedule, losses) == [0] * 3 + [1] * 4 + [2] * 8
    assert schedule.done


def test_no_stage_epochs_is_no_limit() -> None:
    schedule = ChunkSchedule.plan([100, 1], epochs=10, patience=5, stage_epochs=None)
    assert stages_of(schedule, falling(100)) == [0] * 100


@pytest.mark.parametrize(
    ("stages", "epochs", "share"),
    [
        ([100, 50, 10, 2, 1], 50, 10),
        ([100, 50, 10, 2, 1], 54, 10),
        ([100, 50, 10, 2, 1], 3, 1),
        ([1], 50, 50),
        ([10, 1], 45, 22),
        ([10, 10, 1], 9, 4),  # a repeat is not counted
        ([10, 1, 10], 9, 3),
    ],
)
def test_auto_gives_every_stage_an_equal_share_and_the_last_the_rest(
    stages: list[int], epochs: int, share: int
) -> None:
    schedule = ChunkSchedule.plan(stages, epochs=epochs, patience=1000, stage_epochs="auto")
    chunks = []
    for loss in falling(epochs):
        chunks.append(schedule.chunks)
        schedule.end_epoch(loss)
    distinct = [n for n, _ in groupby(stages)]
    expected = [n for n in distinct[:-1] for _ in range(share)] + [distinct[-1]] * epochs
    assert chunks == expected[:epochs]
    assert not schedule.done


def test_auto_merges_repeats_for_patience_too() -> None:
    schedule = ChunkSchedule.plan([10, 10, 1, 1], epochs=100, patience=2)
    assert stages_of(schedule, [1.0] * 100) == [0, 0, 0, 1, 1, 1]


def test_a_given_number_of_stage_epochs_is_kept() -> None:
    schedule = ChunkSchedule.plan([10, 1], epochs=100, patience=None, stage_epochs=2)
    assert stages_of(schedule, falling(6)) == [0, 0, 1, 1, 1, 1]


def test_loss_that_is_not_a_number_is_no_new_best() -> None:
    assert stages_of(ChunkSchedule([10, 1], patience=2), [1.0, NAN, 0.5, NAN, NAN, 3.0]) == [0, 0, 0, 0, 0, 1]
    assert stages_of(ChunkSchedule([10, 1], patience=2), [NAN, NAN, 3.0]) == [0, 0, 1]
    schedule = ChunkSchedule([10, 1], patience=3)
    assert stages_of(schedule, [NAN, 1.0, NAN, 2.0, 0.9]) == [0] * 5, "a number after it is one"
    assert schedule.best == 0.9


@pytest.mark.parametrize("loss", [math.inf, NAN])
def test_losses_that_never_are_finite_end_training_all_the_same(loss: float) -> None:
    schedule = ChunkSchedule([10, 1], patience=2)
    assert stages_of(schedule, [loss] * 50) == [0, 0, 1, 1]
    assert schedule.done


def test_ended_stage_is_told_once() -> None:
    schedule = ChunkSchedule([10, 1], patience=None, stage_epochs=2)
    assert [schedule.end_epoch(1.0) for _ in range(6)] == [False, True, False, False, False, False]


def test_planning_leaves_the_given_list_alone() -> None:
    stages = [10, 10, 1]
    ChunkSchedule.plan(stages, epochs=10)
    assert stages == [10, 10, 1]


@pytest.mark.parametrize("cut", range(13))
def test_state_goes_on_where_it_stopped(cut: int) -> None:
    losses = [3.0, 2.0, 2.5, NAN, 1.0, 1.0, 1.0, 4.0, 3.0, 3.5, 3.5, 9.0, 9.0]
    whole = ChunkSchedule.plan([100, 10, 1], epochs=12, patience=2, stage_epochs="auto")
    first = ChunkSchedule.plan([100, 10, 1], epochs=12, patience=2, stage_epochs="auto")
    expected = stages_of(whole, losses)
    seen = stages_of(first, losses[:cut])
    state = first.state_dict()
    assert all(isinstance(v, int | float | list | None) for v in state.values())
    second = ChunkSchedule.from_state(state)
    seen += [] if second.done else stages_of(second, losses[cut:])
    assert seen == expected
    assert second == whole
    assert whole.done


# --- geometric lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stages", "chunks"),
    [
        (100, 5, [100, 32, 10, 3, 1]),
        (100, 1, [100]),
        (100, 2, [100, 1]),
        (100, 3, [100, 10, 1]),
        (2, 5, [2, 1]),  # 2, 1.68, 1.41, 1.19, 1
        (1, 4, [1]),
        (8, 4, [8, 4, 2, 1]),
        (3, 6, [3, 2, 1]),  # 3, 2.41, 1.93, 1.55, 1.25, 1
    ],
)
def test_geometric_list_for_known_cases(start: int, stages: int, chunks: list[int]) -> None:
    assert geometric_chunks(start, stages) == chunks


def test_geometric_lists_follow_the_formula_without_repeats() -> None:
    for start in range(2, 401, 7):
        for stages in range(2, 9):
            exact = [math.exp(math.log(start) * (1 - k / (stages - 1))) for k in range(stages)]
            assert all(abs(x % 1 - 0.5) > 1e-9 for x in exact)
            expected = list(dict.fromkeys(math.floor(x + 0.5) for x in exact))
            got = geometric_chunks(start, stages)
            assert got == expected
            assert (got[0], got[-1]) == (start, 1)
            assert all(a > b for a, b in pairwise(got))
