"""Plain values against annotations: what fits is taken, what does not is told in words."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from multiravens.options.annotations import declared, wanted
from multiravens.sim.domain import Domain

NODE = {"_target_": "a.B"}


@pytest.mark.parametrize(
    ("value", "annotation", "told"),
    [
        (3, int, ""),
        (True, int, "an integer"),
        (3.0, int, "an integer"),
        (3, float, ""),
        ("3", float, "a number"),
        (1, bool, "true or false"),
        (None, str, "a text"),
        (None, str | None, ""),
        (3, Optional[str], "a text or null"),  # noqa: UP045
        ("a", Literal["a", "b"], ""),
        ("c", Literal["a", "b"], "a or b"),
        ([1, 2], list[int], ""),
        ([1, "a"], list[int], "a list, each an integer"),
        ("ab", Sequence[str], "a list"),
        ([1, 2.5, 3], tuple[float, float, float], ""),
        ([1, 2], tuple[float, float, float], "a list of 3"),
        ([1, 2], tuple[int, ...], ""),
        ({"a": 1}, Mapping[str, int], ""),
        ({"a": "b"}, dict[str, int], "an integer for each name"),
        ([], dict[str, int], "a group of options"),
        (NODE, dict[str, Any], "a group of options"),
        (NODE, Domain | None, ""),
        ({"hue": 1}, Domain, "a Domain, by its _target_"),
        ({"a": NODE}, Mapping[str, Domain], ""),
        (NODE, Callable[[int], int], ""),
        ("a", Callable[..., Any], "what is called, by its _target_"),
        ("a", Path, ""),
        ([1.0], ArrayLike, ""),
        ([1.0], NDArray[np.float32], ""),
        ("a", Any, ""),
        ("a", object, ""),
        (["a", {"mesh": "b"}], Sequence[str | Mapping[str, Any]], ""),
        ([5], Sequence[str | Mapping[str, Any]], "a list, each a text or a group of options"),
    ],
)
def test_a_value_is_of_its_declared_type_or_told_which(value: object, annotation: Any, told: str) -> None:
    assert wanted(value, annotation) == told


def test_annotations_that_can_not_be_resolved_tell_nothing() -> None:
    class Odd:
        def __init__(self, thing: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    assert declared(Odd) == {} and declared(5) == {}
    assert declared(Domain)["hue"] is float
