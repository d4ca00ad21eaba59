"""The best trials of a search."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from nases_env.evaluation import Evaluation, Status
from nases_env.search import Trial
from nases_env.search.trials import Ranking, SeenChildren
from nases_env.search_spaces import Architecture

outcomes = st.tuples(
    st.integers(0, 6),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([Status.OK, Status.OK, Status.DIVERGED]),
)


@given(st.lists(outcomes, max_size=40), st.integers(1, 8))
def test_ranking_equals_the_beginning_of_a_ranking_of_all_trials(
    drawn: Sequence[tuple[int, float, int | None, Status]], size: int
) -> None:
    ranking, best = Ranking(size), dict[str, Trial]()
    for number, (child, reward, fidelity, status) in enumerate(drawn, start=1):
        evaluation = Evaluation(str(child), 0, status, reward, fidelity=fidelity)
        trial = Trial(number, Architecture("x", (child,), str(child)), evaluation)
        key = trial.architecture.key
        if key not in best or evaluation.rank > best[key].evaluation.rank:
            best[key] = trial
        is_ranked = ranking.add(trial)
        # Sorting is stable, and ``best`` has no order, so that the number decides between equal ranks.
        everything = sorted(best.values(), key=lambda each: each.number)
        everything.sort(key=lambda each: each.evaluation.rank, reverse=True)
        assert ranking.trials() == everything[:size]
        assert is_ranked == (trial in everything[:size])


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, 1, 3])), max_size=40), st.integers(0, 40))
def test_children_are_new_once_whether_they_are_recorded_or_not(
    drawn: Sequence[tuple[int, int | None]], num_recorded: int
) -> None:
    seen, expected = SeenChildren(), set(drawn[:num_recorded])
    for child, fidelity in drawn[:num_recorded]:
        seen.add_recorded(str(child), fidelity)
    for child, fidelity in drawn[num_recorded:]:
        assert seen.add(str(child), fidelity) == ((child, fidelity) not in expected)
        expected.add((child, fidelity))
