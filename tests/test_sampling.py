"""Weighted sampling: frequencies follow their formulas, and what is drawn depends on nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from multiravens.data.training.sampling import (
    AdaptiveTasks,
    Catalogue,
    ExplicitTasks,
    HorizonTasks,
    PrioritisedSteps,
    Sampler,
    StepChoice,
    SubgoalSteps,
    TaskChoice,
    UniformSteps,
    UniformTasks,
)
from multiravens.errors import UserError
from multiravens.options.instantiate import instantiate
from multiravens.options.search import CONFIGS

# Goal pointers before each step, by task and demonstration; the last one comes back to a segment that it had left.
POINTERS = {
    "placing": [[0, 1], [0, 0, 1]],
    "routing": [[0, 0, 0, 0, 1, 2], [0, 1, 2]],
    "stacking": [[0, 1, 0, 1, 1, 2, 3, 4]],
}
DRAWS = 40_000
YAML_FILES = sorted(path for group in ("task_sampling", "step_sampling") for path in (CONFIGS / group).glob("*.yaml"))


def make_catalogue(pointers: dict[str, list[list[int]]] = POINTERS, shuffle: int | None = 0) -> Catalogue:
    """Lists the steps of demonstrations; shuffled, so that nothing relies on a task's samples lying together."""
    runs = [(task, run) for task, name in enumerate(pointers) for run in pointers[name]]
    rows = [(task, episode, pointer) for episode, (task, run) in enumerate(runs) for pointer in run]
    table = np.array(rows, np.int64)
    if shuffle is not None:
        table = np.random.default_rng(shuffle).permutation(table)
    return Catalogue(list(pointers), *np.ascontiguousarray(table.T))


CATALOGUE = make_catalogue()
SAMPLES = np.arange(len(CATALOGUE.task))
LOSSES = np.random.default_rng(1).uniform(0.1, 8.0, len(SAMPLES))


def make_sampler(
    tasks: TaskChoice | None = None, steps: StepChoice | None = None, batch: int = 8, seed: int = 3
) -> Sampler:
    return Sampler(CATALOGUE, tasks or AdaptiveTasks(), steps or PrioritisedSteps(), batch, seed)


def assert_frequencies(counts: np.ndarray, probabilities: np.ndarray) -> None:
    assert counts[probabilities == 0].sum() == 0
    drawn = probabilities > 0
    assert chisquare(counts[drawn], probabilities[drawn] * counts.sum()).pvalue > 1e-3


def drawn_tasks(tasks: TaskChoice, losses: dict[str, float]) -> np.ndarray:
    sampler = make_sampler(tasks, UniformSteps(), batch=DRAWS)
    for name, loss in losses.items():
        sampler.record(np.flatnonzero(CATALOGUE.task == CATALOGUE.tasks.index(name))[:1], np.array([loss]))
    sampler.draw(0)
    return sampler.drawn_tasks


class TestTasks:
    @pytest.mark.parametrize(
        ("choice", "losses", "expected"),
        [
            (UniformTasks(), {}, [1 / 3, 1 / 3, 1 / 3]),
            (HorizonTasks(), {}, [2.5 / 15, 4.5 / 15, 8 / 15]),
            (ExplicitTasks({"stacking": 3, "placing": 0.5, "routing": 0}), {}, [0.5 / 3.5, 0, 3 / 3.5]),
            (AdaptiveTasks(), {}, [1 / 3, 1 / 3, 1 / 3]),
            (AdaptiveTasks(1, 0), {"placing": 1, "routing": 2, "stacking": 5}, [1 / 8, 2 / 8, 5 / 8]),
            (AdaptiveTasks(0.5, 0), {"placing": 1, "routing": 2, "stacking": 5}, [1 / 30, 4 / 30, 25 / 30]),
            (AdaptiveTasks(1, 0.3), {"placing": 1, "routing": 2, "stacking": 5}, [0.1875, 0.275, 0.5375]),
            (AdaptiveTasks(1, 0), {"placing": 1, "routing": 2}, [1 / 5, 2 / 5, 2 / 5]),
            (AdaptiveTasks(1, 0.3), {"placing": 0, "routing": 2, "stacking": 2}, [0.1, 0.45, 0.45]),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, TaskChoice) else "",
    )
    def test_frequencies_follow_the_formula(
        self, choice: TaskChoice, losses: dict[str, float], expected: list[float]
    ) -> None:
        probabilities = choice.probabilities(
            CATALOGUE, np.array([losses.get(name, np.nan) for name in CATALOGUE.tasks])
        )
        assert np.allclose(probabilities, expected, atol=1e-9)
        assert_frequencies(drawn_tasks(choice, losses), np.array(expected))

    def test_a_tasks_loss_is_an_exponential_mean_in_the_order_recorded(self) -> None:
        sampler = make_sampler(AdaptiveTasks(memory=0.5))
        own = np.flatnonzero(CATALOGUE.task == 1)[[0, 1, 0]]
        sampler.record(own, np.array([4.0, 2.0, 1.0]))
        assert np.array_equal(sampler.task_losses, [np.nan, 2.0, np.nan], equal_nan=True)
        assert sampler.losses[own].tolist() == [1.0, 2.0, 1.0]

    def test_the_extremes_of_temperature_and_loss_stay_finite(self) -> None:
        for temperature in (1e-3, 1e3):
            probabilities = AdaptiveTasks(temperature, 0.1).probabilities(CATALOGUE, np.array([0.0, 1e-300, 1e300]))
            assert np.isclose(probabilities.sum(), 1)
            assert probabilities.min() >= 0.1 / 3


def by_hand(choice: StepChoice) -> np.ndarray:
    """Works out each sample's probability within its task by the formula, one sample at a time."""
    expected = np.zeros(len(SAMPLES))
    for sample in SAMPLES:
        task = CATALOGUE.task == CATALOGUE.task[sample]
        episode = CATALOGUE.episode == CATALOGUE.episode[sample]
        segment = episode & (CATALOGUE.segment == CATALOGUE.segment[sample])
        if isinstance(choice, SubgoalSteps):
            episodes, segments = len(set(CATALOGUE.episode[task])), len(set(CATALOGUE.segment[episode]))
            expected[sample] = 1 / episodes / segments / segment.sum()
        elif isinstance(choice, PrioritisedSteps):
            powers = (LOSSES + choice.floor) ** choice.exponent
            expected[sample] = powers[sample] / powers[task].sum()
        else:
            expected[sample] = 1 / task.sum()
    return expected


class TestSteps:
    @pytest.mark.parametrize(
        "choice",
        [UniformSteps(), SubgoalSteps(), PrioritisedSteps(), PrioritisedSteps(1, 1, 0.5)],
        ids=lambda choice: type(choice).__name__,
    )
    def test_frequencies_follow_the_formula(self, choice: StepChoice) -> None:
        expected = by_hand(choice)
        assert np.allclose(choice.probabilities(CATALOGUE, LOSSES), expected, rtol=1e-12)
        weights = {"placing": 1, "routing": 2, "stacking": 5}
        sampler = make_sampler(ExplicitTasks(weights), choice, batch=DRAWS)
        sampler.record(SAMPLES, LOSSES)
        drawn = sampler.draw(0)
        assert_frequencies(sampler.drawn, expected * np.array([1, 2, 5])[CATALOGUE.task] / 8)
        assert np.array_equal(np.bincount(drawn.samples, minlength=len(SAMPLES)), sampler.drawn)

    def test_every_subgoal_of_a_demonstration_is_drawn_alike(self) -> None:
        probabilities = SubgoalSteps().probabilities(CATALOGUE, LOSSES)
        for episode in np.unique(CATALOGUE.episode):
            own = CATALOGUE.episode == episode
            shares = np.bincount(CATALOGUE.segment[own], weights=probabilities[own])
            assert np.allclose(shares, shares[0])

    def test_what_was_not_drawn_counts_as_its_tasks_largest_loss(self) -> None:
        losses = LOSSES.copy()
        own = np.flatnonzero(CATALOGUE.task == 1)
        losses[own[0]] = np.nan
        losses[CATALOGUE.task == 2] = np.nan
        filled = losses.copy()
        filled[own[0]] = losses[own[1:]].max()
        filled[CATALOGUE.task == 2] = 7.0
        choice = PrioritisedSteps()
        assert np.allclose(choice.probabilities(CATALOGUE, losses), choice.probabilities(CATALOGUE, filled))

    def test_weights_are_one_over_n_p_to_the_correction_over_their_largest(self) -> None:
        choice = PrioritisedSteps(correction=0.4)
        probabilities = choice.probabilities(CATALOGUE, LOSSES)
        raw = (CATALOGUE.counts[CATALOGUE.task] * probabilities) ** -0.4
        expected = raw / CATALOGUE.largest(raw)[CATALOGUE.task]
        assert np.allclose(choice.weights(CATALOGUE, probabilities, SAMPLES), expected)
        assert make_sampler(steps=UniformSteps()).draw(0).weights.tolist() == [1.0] * 8

    def test_full_correction_makes_the_weighted_mean_that_of_even_draws(self) -> None:
        sampler = make_sampler(ExplicitTasks({"placing": 0, "routing": 1, "stacking": 0}), PrioritisedSteps(1, 1))
        sampler.batch = DRAWS
        sampler.record(SAMPLES, LOSSES)
        drawn = sampler.draw(0)
        assert drawn.weights.dtype == np.float32
        assert 0 < drawn.weights.min() < drawn.weights.max() == 1
        even, values = LOSSES[CATALOGUE.task == 1].mean(), LOSSES[drawn.samples]
        assert abs(np.average(values, weights=drawn.weights) - even) < 0.02 * even
        assert values.mean() > 1.2 * even


class TestSampler:
    def test_the_same_seed_step_and_losses_give_the_same_batch(self) -> None:
        one, other = make_sampler(), make_sampler()
        one.record(SAMPLES, LOSSES)
        one.draw(7)
        other.record(SAMPLES, LOSSES)
        for step in (5, 0, 5):
            for first, second in zip(one.draw(step), other.draw(step), strict=True):
                assert np.array_equal(first, second)
        assert not np.array_equal(one.draw(5).samples, one.draw(6).samples)
        assert not np.array_equal(one.draw(5).samples, make_sampler(seed=4).draw(5).samples)

    def test_a_resumed_sampler_draws_what_it_would_have_drawn(self) -> None:
        rng = np.random.default_rng(0)
        losses = rng.uniform(0, 5, (40, 8))
        whole, cut = make_sampler(), make_sampler()
        for step in range(40):
            if step == 17:
                state = {name: array.copy() for name, array in cut.state().items()}
                cut = make_sampler()
                cut.draw(99)
                cut.restore(state)
            first, second = whole.draw(step), cut.draw(step)
            assert np.array_equal(first.samples, second.samples), step
            assert np.array_equal(first.weights, second.weights), step
            whole.record(first.samples, losses[step])
            cut.record(second.samples, losses[step])
        for name, array in whole.state().items():
            assert np.array_equal(array, cut.state()[name], equal_nan=True), name

    def test_a_state_is_not_changed_by_what_follows(self) -> None:
        sampler = make_sampler()
        state = sampler.state()
        sampler.record(sampler.draw(0).samples, np.ones(8))
        assert state["drawn"].sum() == 0 and np.isnan(state["losses"]).all()

    def test_what_was_drawn_is_counted_and_told(self) -> None:
        sampler = make_sampler(batch=500)
        samples = np.concatenate([sampler.draw(step).samples for step in range(4)])
        assert np.array_equal(sampler.drawn, np.bincount(samples, minlength=len(SAMPLES)))
        assert np.array_equal(sampler.drawn_tasks, np.bincount(CATALOGUE.task[samples]))
        summary = json.loads(json.dumps(sampler.summary()))
        assert summary["draws"] == 2000
        assert summary["tasks"] == {
            name: round(float((CATALOGUE.task[samples] == task).mean()), 5) for task, name in enumerate(CATALOGUE.tasks)
        }
        assert np.allclose(summary["segments"], np.bincount(CATALOGUE.segment[samples]) / 2000)

    def test_of_a_sample_recorded_twice_the_last_loss_counts_and_nan_is_not_known(self) -> None:
        sampler = make_sampler()
        sampler.record(np.array([4, 4, 5, 6, 6]), np.array([1.0, 2.0, np.nan, 3.0, np.inf]))
        assert sampler.losses[4] == 2.0
        assert np.isnan(sampler.losses[[5, 6]]).all()
        assert np.isfinite(sampler.draw(0).weights).all()

    def test_a_draw_never_leaves_its_task_or_meets_probability_zero(self) -> None:
        class Ends(StepChoice):
            """Only the first sample of each task."""

            def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
                chosen = np.zeros(len(catalogue.task))
                chosen[catalogue.order[catalogue.starts]] = 1.0
                return chosen

        sampler = make_sampler(UniformTasks(), Ends(), batch=2000)
        sampler.draw(0)
        assert np.array_equal(np.flatnonzero(sampler.drawn), np.sort(CATALOGUE.order[CATALOGUE.starts]))


RUNS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=4)
CATALOGUES = st.lists(RUNS, min_size=1, max_size=4).map(
    lambda tasks: make_catalogue({f"task{index}": runs for index, runs in enumerate(tasks)}, shuffle=len(tasks))
)


@settings(max_examples=60, deadline=None)
@given(CATALOGUES, st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1e3))
def test_probabilities_sum_to_one_and_are_never_negative(
    catalogue: Catalogue, seed: int, exponent: float, floor: float, temperature: float
) -> None:
    rng = np.random.default_rng(seed)
    losses = np.where(rng.random(len(catalogue.task)) < 0.3, np.nan, rng.exponential(3, len(catalogue.task)))
    steps: list[StepChoice] = [UniformSteps(), SubgoalSteps(), PrioritisedSteps(exponent, floor=max(floor, 1e-6))]
    for choice in steps:
        probabilities = choice.probabilities(catalogue, losses)
        assert probabilities.shape == losses.shape and probabilities.min() >= 0
        assert np.allclose(np.bincount(catalogue.task, weights=probabilities), 1)
        weights = choice.weights(catalogue, probabilities, np.arange(len(losses)))
        assert weights.min() > 0 and np.isclose(weights.max(), 1)
    unsure = np.where(rng.random(len(catalogue.tasks)) < 0.3, np.nan, rng.exponential(3, len(catalogue.tasks)))
    explicit = ExplicitTasks({name: index + 1 for index, name in enumerate(catalogue.tasks)})
    tasks: list[TaskChoice] = [UniformTasks(), HorizonTasks(), explicit, AdaptiveTasks(temperature, floor)]
    for among in tasks:
        probabilities = among.probabilities(catalogue, unsure)
        assert probabilities.shape == unsure.shape and probabilities.min() >= 0
        assert np.isclose(probabilities.sum(), 1)
    sampler = Sampler(catalogue, tasks[-1], steps[-1], 16, 0)
    sampler.record(np.arange(len(losses)), losses)
    assert sampler.draw(0).samples.max() < len(losses)


class TestBadInput:
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ([1, 2], "above 0"),
            (None, "give each problem's, as task_sampling.weights={placing:2,stacking:1}"),
            ({"placing": 0, "routing": 0, "stacking": 0}, "above 0"),
            ({"placing": -1}, "the weight of placing is -1: give a number from 0"),
            ({"placing": float("nan")}, "placing is nan"),
            ({"placing": 9**400}, "give a number from 0"),
            ({"placing": "much"}, "placing is 'much'"),
            ({"placing": True}, "placing is True"),
            ({"placng": 1, "routing": 1, "stacking": 1}, "'placng': choose from placing,"),
            ({"placing": 1, "routing": 1}, "lacks stacking: give each a weight, 0 to leave it out"),
        ],
    )
    def test_wrong_weights_are_one_line_with_a_remedy(self, weights: Any, message: str) -> None:
        with pytest.raises(UserError) as error:
            make_sampler(ExplicitTasks(weights))
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("target", "parameters"),
        [
            ("AdaptiveTasks", {"temperature": 0.0}),
            ("AdaptiveTasks", {"temperature": float("nan")}),
            ("AdaptiveTasks", {"floor": 1.5}),
            ("AdaptiveTasks", {"memory": 1.0}),
            ("PrioritisedSteps", {"exponent": -0.1}),
            ("PrioritisedSteps", {"correction": 1.1}),
            ("PrioritisedSteps", {"floor": 0.0}),
        ],
    )
    def test_a_parameter_out_of_range_is_named(self, target: str, parameters: dict[str, float]) -> None:
        (name, value), *_ = parameters.items()
        with pytest.raises(UserError, match=f"{name}={value}: give a number from"):
            instantiate({"_target_": f"multiravens.data.training.sampling.{target}", **parameters})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tasks": ["placing", "routing"]}, "give each task a name of its own and a sample"),
            ({"tasks": ["placing", "routing", "stacking", "chaining"]}, "chaining"),
            ({"tasks": ["placing", "routing", "placing"]}, "name of its own"),
            ({"tasks": []}, "name of its own"),
            ({"task": CATALOGUE.task[:-1]}, "episode must be"),
            ({"segment": CATALOGUE.segment.astype(float)}, "segment must be"),
            ({"segment": CATALOGUE.segment - 1}, "segment holds -1"),
            ({"episode": CATALOGUE.episode * 0}, "belongs to two tasks"),
        ],
    )
    def test_a_catalogue_that_does_not_fit_is_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            replace(CATALOGUE, **change)

    def test_a_state_of_other_demonstrations_is_one_line(self) -> None:
        state = make_sampler().state()
        for wrong in (state | {"losses": np.zeros(3)}, {"drawn": state["drawn"]}):
            with pytest.raises(UserError, match="the sampler's losses, and these demonstrations need"):
                make_sampler().restore(wrong)

    def test_wrong_sizes_are_refused(self) -> None:
        for batch, seed in ((0, 0), (1, -1)):
            with pytest.raises(ValueError, match="give a batch of 1"):
                make_sampler(batch=batch, seed=seed)
        with pytest.raises(ValueError, match="must be"):
            make_sampler().record(np.array([1, 2]), np.array([1.0]))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_yaml_file_is_built_with_the_constructors_defaults(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    if "weights" in config:
        config["weights"] = {"placing": 1}
    built = instantiate(config)
    assert type(built).__name__.lower().startswith(path.stem)
    assert isinstance(built, TaskChoice if path.parent.name == "task_sampling" else StepChoice)
    if "weights" not in config:
        assert vars(built) == vars(type(built)())


def test_every_choice_has_a_yaml_file() -> None:
    assert len(YAML_FILES) == len(TaskChoice.__subclasses__()) + 3 == 7
