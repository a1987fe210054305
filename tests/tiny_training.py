"""Training runs of seconds."""

from pathlib import Path

from tests import synthetic

TINY = ["backbone=small", "backbone.network.width=16", "backbone.network.depth=2", "backbone.network.fine=8"]
TINY += ["problems=[synthetic]", "demos=4", "steps=6", "batch=4", "checkpoint_every=2", "log_every=1", "threads=1"]
MODULAR = ["backbone=modular", "backbone.network.depth=0", "backbone.streams.blocks=2", "backbone.streams.depth=2"]
MODULAR += ["problems=[synthetic,other]"]
"""Of TINY's size, with programs for two problems."""


def configured(data: Path, run: Path, *overrides: str) -> dict[str, object]:
    return synthetic.configured(*TINY, f"data='{data}'", f"run='{run}'", *overrides)
