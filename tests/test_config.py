"""Composition: every YAML file binds, every override is valid or one line."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from multiravens.errors import UserError, nearest, unknown
from multiravens.options.compose import compose
from multiravens.options.instantiate import check, instantiate
from multiravens.options.search import CONFIGS, groups, options
from multiravens.options.types import flatten

PRIMARIES = ["demos", "environment", "evaluate", "export", "render", "report", "sweep", "train", "transfer"]
MODULES = ["chaining", "placing", "routing", "stacking"]
PROBLEMS = [
    "chaining",
    "chaining-placing",
    "chaining-placing-routing",
    "chaining-placing-routing-stacking",
    "chaining-placing-stacking",
    "chaining-routing",
    "chaining-routing-stacking",
    "chaining-stacking",
    "placing",
    "placing-routing",
    "placing-routing-stacking",
    "placing-stacking",
    "routing",
    "routing-stacking",
    "stacking",
]
EVERY_CHOICE = [
    *(("problem", name) for name in PROBLEMS),
    *(("module@problem.modules.chaining", name) for name in MODULES),
    ("camera", "orthographic"),
    ("camera", "realsense"),
    *(("domain", name) for name in ("dim", "grainy", "marble", "negative", "warm", "wood")),
    ("motion", "arm"),
    ("motion", "gripper"),
    ("motion", "slipping"),
    ("primitive", "pick_place"),
]
MEASURED_AGENTS = ["blind", "oracle", "random", "replay"]
BESIDE = {"references": 4, "standard": 2}  # agents in each
ACTING = ["as_trained", "plain", "standard"]
SUITES = ["fifteen", "ten"]
TABLES = ["singles", "ten", "ten_half"]
TRAINING_CHOICES = [
    *(("agent", name) for name in ("gctn", "gctn_step", "sctn", "transporter")),
    *(("augmentation", name) for name in ("none", "se2")),
    *(("backbone", name) for name in ("base", "modular", "resnet43", "small")),
    *(("fusion", name) for name in ("split", "stack")),
    *(("+program_part@backbone.streams.parts.mine", name) for name in ("adapter", "width")),
    ("loss", "none"),
    *(("step_sampling", name) for name in ("prioritised", "subgoal", "uniform")),
    *(("task_sampling", name) for name in ("adaptive", "explicit", "horizon", "uniform")),
]

METHODS = ["adapter", "full", "harden", "order", "order+patch", "patch", "scratch"]

USER_MODULE = """
LIMIT = 3

class Sorting:
    def __init__(self, bins: int, sizes: list[float] | None = None):
        if bins < 1:
            raise ValueError(f"bins={bins}: give at least 1")
        self.bins, self.sizes = bins, sizes
"""


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own module: a class on the path and its YAML file, in a folder whose name needs quoting."""
    folder = tmp_path / "it's, my [configs]"
    (folder / "module").mkdir(parents=True)
    (folder / "module" / "sorting.yaml").write_text("_target_: outsider.Sorting\nbins: 3\nsizes: [0.1, 0.2]\n")
    (tmp_path / "outsider.py").write_text(USER_MODULE)
    (tmp_path / "needy.py").write_text("import missing_dependency")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "outsider", raising=False)
    return folder


def plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config)


def test_the_lists_above_name_every_yaml_file() -> None:
    assert options([CONFIGS], "") == PRIMARIES
    assert options([CONFIGS], "problem") == PROBLEMS
    assert groups([CONFIGS]) == sorted(
        {"module", "program_part", "table", "train", "metrics", "suite", "acting", "beside_agents"}
        | {group for group, _ in EVERY_CHOICE + TRAINING_CHOICES if "@" not in group}
    )
    base = 1 - len(PROBLEMS)  # configs/problem/composed.yaml, on which problems are composed without files
    choices = len(EVERY_CHOICE) + len(TRAINING_CHOICES) + len(MEASURED_AGENTS) + len(TABLES) + len(METHODS)
    extra = len(BESIDE) + len(SUITES) + len(ACTING)
    assert options([CONFIGS], "train") == METHODS
    assert options([CONFIGS], "table") == TABLES
    assert options([CONFIGS], "suite") == SUITES
    assert options([CONFIGS], "metrics") == ["standard"]
    assert options([CONFIGS], "acting") == ACTING
    assert len(list(CONFIGS.rglob("*.yaml"))) == len(PRIMARIES) + choices + base + extra + 1 == 70


@pytest.mark.parametrize("name", PRIMARIES)
def test_every_primary_configuration_composes(name: str) -> None:
    config = compose(name)
    assert (
        name in ("evaluate", "export", "report", "sweep", "train", "transfer")
        or config.problem.name == "chaining-placing"
    )


@pytest.mark.parametrize(("group", "name"), EVERY_CHOICE)
def test_every_choice_composes_and_its_targets_bind(group: str, name: str) -> None:
    config = plain(compose("environment", [f"{group}={name}"]))
    # The problem itself, its modules, the camera, its domain if there is one, and the motion.
    assert check(config) == 4 + len(config["problem"]["modules"]) + (group == "domain")


@pytest.mark.parametrize("name", MEASURED_AGENTS)
def test_agents_that_are_only_measured_bind(name: str) -> None:
    assert check(plain(compose("evaluate", [f"agent={name}"]))["agent"]) == 1


@pytest.mark.parametrize("name", BESIDE)
def test_every_choice_of_agents_beside_binds(name: str) -> None:
    assert options([CONFIGS], "beside_agents") == list(BESIDE)
    assert check(plain(compose("evaluate", [f"beside_agents={name}"]))["beside_agents"]) == BESIDE[name]


@pytest.mark.parametrize(("group", "name"), TRAINING_CHOICES)
def test_every_choice_of_training_composes_and_its_targets_bind(group: str, name: str) -> None:
    assert check(plain(compose("train", [f"{group}={name}"]))) >= 5


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_transfer_composes_and_its_targets_bind(name: str) -> None:
    config = plain(compose("transfer", [f"train={name}"]))
    assert check(config["train"]) == 1 + (name == "adapter") and config["train"]["name"] == name


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_file_opens_with_its_purpose_and_run_command(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert "multiravens" in "".join(line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_holds_its_modules_in_either_spelling(name: str) -> None:
    parts = name.split("-")
    config = plain(compose("environment", [f"problem={'-'.join(reversed(parts))}"]))
    assert config == plain(compose("environment", [f"problem={name}"]))
    assert list(config["problem"]["modules"]) == parts
    assert config["problem"]["name"] == name


def test_a_repeated_module_is_composed_twice() -> None:
    config = compose("environment", ["problem=placing-stacking-placing"])
    assert list(config.problem.modules) == ["placing", "placing_2", "stacking"]
    assert config.problem.modules.placing_2 == config.problem.modules.placing
    assert config.problem.name == "placing-placing-stacking"


def test_a_group_that_need_not_be_chosen_takes_null() -> None:
    assert compose("demos", ["domain=wood", "domain=null"]) == compose("demos")


def test_the_last_choice_of_a_problem_wins() -> None:
    config = compose("environment", ["problem=placing-placing", "problem=stacking"])
    assert list(config.problem.modules) == ["stacking"]


def test_an_outsiders_module_joins_a_problem_and_is_built(user_folder: Path) -> None:
    overrides = ["problem=sorting-placing", "problem.modules.sorting.bins=5"]
    config = compose("environment", overrides, [user_folder])
    assert config == compose("environment", overrides, user_folder)
    assert list(config.problem.modules) == ["placing", "sorting"]
    built = instantiate(config.problem.modules.sorting)
    assert (built.bins, built.sizes, type(built.sizes)) == (5, [0.1, 0.2], list)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("problem.modules.sorting.bins=0", "bins=0: give at least 1"),
        ("problem.modules.sorting._target_=outsider.Sortin", "unknown name in outsider 'Sortin': choose from Sorting"),
        ("problem.modules.sorting._target_=nowhere.Sorting", "No module named 'nowhere'"),
        ("problem.modules.sorting._target_=needy.Sorting", "No module named 'missing_dependency'"),
        ("problem.modules.sorting._target_=Sorting", "give the dotted path of a class"),
        ("problem.modules.sorting._target_=outsider.LIMIT", "cannot be called"),
        ("+problem.modules.sorting.bin=4", "unknown parameter of outsider.Sorting 'bin': choose from bins, sizes"),
    ],
)
def test_a_constructor_that_cannot_be_called_is_one_line(
    user_folder: Path, override: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    config = compose("environment", ["problem=sorting", override], [user_folder])
    with pytest.raises(UserError) as raised:
        instantiate(config.problem.modules.sorting)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_parameter_is_named(user_folder: Path) -> None:
    with pytest.raises(UserError, match="outsider.Sorting needs a value for 'bins'"):
        instantiate({"_target_": "outsider.Sorting"})
    assert instantiate({"_target_": "outsider.Sorting"}, bins=2).bins == 2


def test_a_users_broken_yaml_is_named_with_its_line(user_folder: Path) -> None:
    (user_folder / "module" / "sorting.yaml").write_text("_target_: a.B\nbins: [1, 2\n")
    with pytest.raises(UserError, match=r"sorting.yaml:\d+ is not valid YAML"):
        compose("environment", ["problem=sorting"], [user_folder])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("problem=plcing", "unknown problem 'plcing': choose from placing,"),
        ("problem=chaning-placing", "'chaning': choose from chaining,"),
        ("problem=composed", "unknown problem 'composed'"),
        ("problem=" + "-".join(["placing"] * 17), "has 17 modules, at most 16"),
        ("camera=real", "unknown camera 'real': choose from realsense, orthographic"),
        ("camera=null", "give one name, out of orthographic, realsense"),
        ("camra=realsense", "unknown option 'camra'"),
        ("episods=3", "unknown option 'episods': choose from episodes,"),
        ("problem.ordr=shuffled", "unknown option 'problem.ordr': choose from problem.order,"),
        ("+speed=3", "unknown option 'speed'"),
        ("+camera@eye=realsense", "only part of a group can be added"),
        ("episodes=many", "episodes=many: give an integer, such as its default 10"),
        ("episodes=1.5", "episodes=1.5: give an integer"),
        ("episodes=null", "episodes=null: give an integer"),
        ("gui=1", "gui=1: give true or false, such as its default false"),
        ("data=[a,b]", "data=[a, b]: give a text"),
        ("splits.train=[a,b]", "splits.train=a: give an integer"),
        ("splits.train.0=3", "splits.train is a list, give it whole"),
        ("episodes=1,2", "names several values"),
        ("~episodes", "nothing can be removed"),
        ("hydra.run.dir=x", "hydra's own settings have no effect"),
        ("problem.name=???", "problem.name has no value"),
        ("data=${nothing}", "cannot resolve the configuration"),
        ("=", "cannot read '='"),
        ("episodes=[[", "cannot read 'episodes=[['"),
        ("data=" + "x" * 20_000, "20005 characters long"),
    ],
)
def test_a_wrong_override_is_one_line_with_a_remedy(override: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        compose("demos", [override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown configuration 'demo': choose from demos"):
        compose("demo")
    with pytest.raises(UserError, match="there is no such folder"):
        compose("demos", [], [tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("data=2026_11", "data", "2026_11"),
        ("data=1e3", "data", "1e3"),
        ("data='a b'", "data", "a b"),
        ("data=/home/j\u00fcrgen/my data (2)", "data", "/home/j\u00fcrgen/my data (2)"),
        ("problem.max_steps=7", "problem.max_steps", 7),
        ("splits.test=[5,9]", "splits.test", [5, 9]),
        ("data=${split}", "data", "train"),
    ],
)
def test_a_value_takes_the_type_of_its_default(override: str, key: str, value: object) -> None:
    assert OmegaConf.select(compose("demos", [override]), key) == value


def test_a_running_hydra_application_keeps_its_state() -> None:
    with initialize_config_module("multiravens.configs.camera", job_name="theirs", version_base="1.2"):
        theirs = GlobalHydra.instance()
        compose("environment", ["problem=stacking"])
        assert GlobalHydra.instance() is theirs
        assert hydra_compose("realsense").depth_noise == 0.003
    compose("environment")
    assert not GlobalHydra.instance().is_initialized()


KEYS = ["problem", "camera", "module@problem.modules.placing", "+module@problem.modules.more", "~camera", "hydra.x"]
KEYS += ["episodes", "+episodes", "++gui", "splits", "splits.train", "problem.modules", "problem.modules.placing", ""]
VALUES = ["", "null", "3", "-1", "1.5", "nan", "true", "[1,2]", "[[]]", "{a:1}", "{a:{b:[c]}}", "a,b", "range(1,3)"]
VALUES += ["placing", "-", "placing-", "a-b", "realsense", "???", "${gui}", "${a.b}", "${oc.env:NO}", "${episodes}"]
VALUES += ["'", "'\\''", "int(3)", "extend_list(1)", "sort(2,1)", "{_target_: os.getcwd}", "0x1", "1e400", "9" * 400]
VALUES += ["\\"]
NONSENSE = st.one_of(
    st.text(max_size=30),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.one_of(st.sampled_from(VALUES), st.text(max_size=12))),
    st.builds("{}={}".format, st.text(max_size=8), st.sampled_from(VALUES)),
    st.text(alphabet="+~@:=.,/-_[]{}()'\"\\$ ab1\n", max_size=20),
)


@hypothesis_settings(max_examples=150)
@given(st.lists(NONSENSE, min_size=1, max_size=3))
@example(["data=" + "[" * 3000])
@example(["problem.modules={}"])
@example(["\x00=\x00"])
def test_nonsense_composes_or_is_one_line(overrides: list[str]) -> None:
    try:
        config = compose("demos", overrides)
    except UserError as error:
        assert str(error)
    else:
        assert all(key for key, _ in flatten(plain(config)))
        assert set(config) == set(compose("demos"))


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=30))
def test_valid_names_are_listed_nearest_first(name: str, valid: list[str]) -> None:
    assert sorted(nearest(name, valid)) == sorted(valid)
    assert all(nearest(known, valid)[0].lower() == known.lower() for known in valid)
    assert repr(name) in str(unknown("name", name, valid))


def test_an_edited_file_is_composed_anew(tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    file = tmp_path / "camera" / "mine.yaml"
    for noise in (0.25, 0.125):
        file.write_text(f"defaults: [realsense, _self_]\ndepth_noise: {noise}\n")
        for _ in range(2):
            config = compose("environment", ["camera=mine"], tmp_path)
            assert config.camera.depth_noise == noise
            config.camera.depth_noise = 0.5  # the caller's own


def test_a_value_is_merged_or_added_as_hydra_does() -> None:
    config = compose("environment", ["problem=placing", "problem.modules.placing={parts: 3}"])
    assert config.problem.modules.placing.parts == 3 and len(config.problem.modules.placing) > 1
    with pytest.raises(UserError, match="there is a camera.color_noise already"):
        compose("environment", ["camera=realsense", "+camera.color_noise=1"])
