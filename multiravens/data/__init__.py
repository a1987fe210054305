"""Episodes on disk: the file format, the folder of a data set, collecting demonstrations into it, and inspection."""

from multiravens.data.collecting.collection import Collected, collect
from multiravens.data.storage.episode import Episode, read_episode, write_episode
from multiravens.data.storage.splits import parse_splits
from multiravens.data.storage.store import Store, find_stores
from multiravens.data.storage.writer import EpisodeWriter

__all__ = [
    "Collected",
    "Episode",
    "EpisodeWriter",
    "Store",
    "collect",
    "find_stores",
    "parse_splits",
    "read_episode",
    "write_episode",
]
