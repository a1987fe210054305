"""Arrays go to a device in one copy, and come out as they were."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from multiravens.data.training.upload import pack, unpack, upload_together

KINDS = st.sampled_from([np.dtype(kind) for kind in ("int64", "float64", "float32", "uint8", "bool")])
ARRAY = KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0)))


@given(st.dictionaries(st.text(max_size=3), ARRAY, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_packed_is_unpacked_to_the_bit(named: dict[str, Any]) -> None:
    unpacked = unpack(pack(named), named)
    assert list(unpacked) == list(named)
    for name, array in named.items():
        assert unpacked[name].shape == array.shape and unpacked[name].numpy().dtype == array.dtype
        assert unpacked[name].numpy().tobytes() == array.tobytes()


def test_an_array_that_is_not_contiguous_is_sent_as_it_reads() -> None:
    array = np.arange(12.0).reshape(3, 4).T
    for made in (unpack(pack({"a": array}), {"a": array}), upload_together({"a": array}, torch.device("cpu"))):
        assert made["a"].tolist() == array.tolist()
