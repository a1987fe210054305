"""Visual domains: what is changed and what is not, the same for a seed, kept through an episode."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from multiravens.envs import make
from multiravens.errors import UserError
from multiravens.options.compose import compose
from multiravens.options.search import CONFIGS, options
from multiravens.sim.domain import TEXTURES, Domain
from multiravens.support.run_environment import environment_of

DOMAINS = options([CONFIGS], "domain")


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_changes_colours_and_keeps_the_scene(name: str) -> None:
    plain, changed = make("placing"), make("placing", domain=name)
    first, _ = plain.reset(seed=3)
    second, _ = changed.reset(seed=3)
    np.testing.assert_allclose(changed.poses(), plain.poses())
    # A camera's noise apart, what stands is where it stood.
    assert np.abs(first["height"] - second["height"]).max() < 0.012
    assert np.abs(first["color"].astype(int) - second["color"]).mean() > 3
    again, _ = changed.reset(seed=3)
    np.testing.assert_array_equal(again["color"], second["color"])
    other, _ = changed.reset(seed=4)
    assert (other["color"] != second["color"]).any()
    plain.close()
    changed.close()


def test_the_table_stays_through_an_episode() -> None:
    env = make("placing", domain="wood")
    before, _ = env.reset(seed=5)
    expert = env.expert()
    assert expert is not None
    after, *_ = env.step(expert.to_dict())
    empty = (before["height"] <= 0) & (after["height"] <= 0)
    np.testing.assert_array_equal(before["color"][empty], after["color"][empty])
    env.close()


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_a_texture_fills_the_table_with_more_than_one_shade(name: str) -> None:
    pattern = TEXTURES[name](np.random.default_rng(0))
    assert pattern.shape == (320, 160) and pattern.min() >= 0 and pattern.max() <= 1 and pattern.std() > 0.1


def test_no_change_is_none() -> None:
    domain, rng = Domain(), np.random.default_rng(0)
    domain.begin(rng)
    color = rng.integers(0, 256, (320, 160, 3), dtype=np.uint8)
    height = rng.uniform(0, 0.1, (320, 160)).astype(np.float32)
    seen, high = domain.apply(color, height, height < 0.05, rng)
    np.testing.assert_array_equal(seen, color)
    np.testing.assert_array_equal(high, height)


def test_a_hue_of_half_a_turn_makes_red_cyan() -> None:
    domain, rng = Domain(hue=180.0), np.random.default_rng(0)
    domain.begin(rng)
    red = np.full((320, 160, 3), (160, 60, 60), np.uint8)
    seen, _ = domain.apply(red, np.zeros((320, 160), np.float32), np.zeros((320, 160), bool), rng)
    r, g, b = (int(value) for value in seen[0, 0])
    assert r < g and r < b


@pytest.mark.parametrize(
    ("options_", "message"),
    [({"texture": "wodo"}, "unknown texture 'wodo': choose from wood"), ({"light": 2.0}, "light=2.0: give 0 to 1")],
)
def test_bad_values_are_refused(options_: dict[str, object], message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        Domain(**options_)  # type: ignore[arg-type]


def test_a_run_can_be_measured_in_another_domain(tmp_path: Path) -> None:
    made = OmegaConf.to_container(compose("environment", ["problem=placing"]), resolve=True)
    assert isinstance(made, dict)
    trained = {"environment": {"placing": {name: made[name] for name in ("problem", "camera", "motion")}}}
    assert "domain" not in trained["environment"]["placing"]["camera"]
    found = environment_of("placing", ["domain=marble"], trained)
    assert found["camera"]["domain"]["texture"] == "marble" and found["camera"]["_target_"].endswith("Orthographic")
