"""The video of a run: its frames and its file. Nothing here uses the simulator."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from multiravens.actions import Mark
from multiravens.drawing.pictures import (
    DONE,
    FAINT,
    INK,
    LEFT,
    NOW,
    PAPER,
    TALLEST,
    Color,
    Image,
    colored,
    draw_action,
    paste,
    tick,
    turned,
    wrap,
    write,
)
from multiravens.errors import UserError, unknown
from multiravens.support.files import storage_error

VIEW = (560, 720)
"""Height and width of the perspective view in a video's frames."""
SUFFIXES = (".mp4", ".gif")

_MARGIN, _TITLE, _LABEL = 16, 38, 24  # [px]
_BELOW = 122  # the strip of sub-goals
_THUMBNAIL = 164  # greatest width of one
_MOST_GOALS = 16  # shown at a time, those around the current one; more would be too small to see


def frame_size(view: tuple[int, int] = VIEW) -> tuple[int, int]:
    """Height and width of the frames around a perspective view of a height and width."""
    return _TITLE + view[0] + _BELOW, view[1] + _panel_size(view)[1] + 3 * _MARGIN


def _panel_size(view: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a heightmap, turned so that +y is right and +x down, as in the perspective view."""
    height = view[0] // 2 - _LABEL
    return height, 2 * height


@dataclass(frozen=True)
class Goals:
    """The sub-goals of an episode.

    Attributes:
        names: of the G sub-goals.
        images: a heightmap (H, W, 3) for each; None where no run has shown it.
    """

    names: Sequence[str]
    images: Sequence[Image | None]


@dataclass(frozen=True)
class Status:
    """The agent's last observation and its present action.

    Attributes:
        color: (H, W, 3) heightmap.
        height: (H, W) above the table [m].
        holds: (G,) which sub-goals stand.
        aim: the sub-goal that is gone for; G when all stand.
        step: actions begun.
        steps: actions of the run.
        marks: the places of the action under way, world frame; none between actions.
    """

    color: Image
    height: NDArray[np.float32]
    holds: NDArray[np.bool_]
    aim: int
    step: int
    steps: int
    marks: Sequence[Mark] = ()


_REFUSED = "ffmpeg could not write to {}: make room on its disk and run the command again"


class Board:
    """Composes a video's frames: perspective view, what the agent sees, sub-goals.

    Args:
        title: stands first in the title line, such as the problem and the seed.
        goals: of the episode.
        view: height and width of the perspective view.
    """

    def __init__(self, title: str, goals: Goals, view: tuple[int, int] = VIEW) -> None:
        self._title, self._goals, self._view = title, goals, view
        self._right = view[1] + 2 * _MARGIN  # first column of what the agent sees
        self._strip = _TITLE + view[0] + 10  # first row of the sub-goals
        self._frame = np.full((*frame_size(view), 3), PAPER, np.uint8)

    def update(self, status: Status) -> None:
        """Draw all but the perspective view; it stays until the next update."""
        frame = self._frame
        frame[:] = PAPER
        self._write_title(status)
        left, size = self._right, _panel_size(self._view)
        tallest = f"0 to {100 * TALLEST:.0f} cm"
        panels = (("what the agent sees: colour", status.color), (f"height, {tallest}", colored(status.height)))
        for index, (label, image) in enumerate(panels):
            top = _TITLE + index * (self._view[0] - size[0] - _LABEL)
            write(frame, label, (left, top + 17), 0.48, FAINT)
            panel = turned(image, size)
            draw_action(panel, status.marks)
            paste(frame, panel, top + _LABEL, left)
        self._draw_strip(status)

    def frame(self, view: Image) -> Image:
        """A frame with a perspective view of the size that was given."""
        paste(self._frame, view, _TITLE, _MARGIN)
        return self._frame

    def _write_title(self, status: Status) -> None:
        over_view = self._frame[:, : self._right - _MARGIN // 2]  # long titles end there
        end = write(over_view, self._title, (_MARGIN, 26), 0.62, INK, bold=True)
        credit = f"step {status.step} of {status.steps}    credit {status.holds.mean():.2f}"
        write(over_view, credit, (end + 28, 26), 0.55, INK)
        done = bool(status.holds.all())
        now = "every sub-goal holds" if done else f"now: {self._goals.names[status.aim]}"
        write(self._frame, now, (self._right, 26), 0.55, DONE if done else NOW, bold=True)

    def _draw_strip(self, status: Status) -> None:
        total, gap = len(self._goals.names), 10
        count = min(total, _MOST_GOALS)
        first = min(max(status.aim - count // 2, 0), total - count)
        width = min(_THUMBNAIL, (self._frame.shape[1] - 2 * _MARGIN + gap) // count - gap)
        size = (width // 2, width)
        for column, index in enumerate(range(first, first + count)):
            name, image = self._goals.names[index], self._goals.images[index]
            left = _MARGIN + column * (width + gap)
            current, held = index == status.aim, bool(status.holds[index])
            self._draw_goal(image, size, left, NOW if current else DONE if held else LEFT)
            if held:
                tick(self._frame, (left + width - 4, self._strip + 6))
            lines = wrap(name.rpartition("/")[2], width, 0.38)
            for row, line in enumerate(lines[:2]):
                write(self._frame, line, (left, self._strip + size[0] + 17 + 14 * row), 0.38, INK if current else FAINT)

    def _draw_goal(self, image: Image | None, size: tuple[int, int], left: int, border: Color) -> None:
        height, width = size
        thick = 3 if border == NOW else 2
        outer = np.s_[self._strip - thick : self._strip + height + thick, left - thick : left + width + thick]
        self._frame[outer] = border
        if image is None:
            self._frame[self._strip : self._strip + height, left : left + width] = PAPER
            write(self._frame, "not reached", (left + 6, self._strip + height // 2), 0.38, FAINT)
            return
        thumbnail = turned(image, size)
        if border == LEFT:
            thumbnail = (255 - 0.7 * (255 - thumbnail.astype(float))).astype(np.uint8)
        paste(self._frame, thumbnail, self._strip, left)


class Video:
    """A video file under way.

    Args:
        path: of the file.
        fps: frames a second.
        size: height and width of the frames, even numbers.

    Attributes:
        frames: written so far.

    Raises:
        UserError: there is no ffmpeg.
    """

    def __init__(self, path: Path, fps: int, size: tuple[int, int]) -> None:
        self.path, self.frames = path, 0
        self._encoder = imageio_ffmpeg.write_frames(
            path,
            size[::-1],
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            ffmpeg_log_level="quiet",
            output_params=["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        try:
            self._encoder.send(None)
        except (OSError, RuntimeError) as error:
            raise UserError(f"ffmpeg cannot be started ({error}): reinstall imageio-ffmpeg") from error

    def write(self, frame: Image, repeat: int = 1) -> None:
        """Append a frame, so many times.

        Raises:
            UserError: the encoder has given up.
        """
        try:
            for _ in range(repeat):
                self._encoder.send(np.ascontiguousarray(frame))
                self.frames += 1
        except OSError as error:
            raise UserError(_REFUSED.format(self.path.parent)) from error

    def close(self) -> None:
        """Finish the file."""
        self._encoder.close()

    def check(self) -> None:
        """Compare what was written with what the file holds.

        Raises:
            UserError: something is missing.
        """
        whole = self.path.is_file() and self.path.stat().st_size > 0
        if not whole or imageio_ffmpeg.count_frames_and_secs(str(self.path))[0] != self.frames:
            raise UserError(_REFUSED.format(self.path.parent))


@contextlib.contextmanager
def open_video(path: Path, fps: int, view: tuple[int, int] = VIEW) -> Iterator[Video]:
    """Make a video that appears, whole, when the block ends without an error.

    Args:
        path: an .mp4 or .gif; its folder is made, an existing file is replaced.
        fps: frames a second.
        view: height and width of the perspective view in it.

    Raises:
        UserError: another suffix, or the disk or the encoder refuses.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise unknown("kind of video", path.suffix, SUFFIXES)
    check_writable(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    try:
        video = Video(temporary, fps, frame_size(view))
        try:
            yield video
        finally:
            video.close()
        video.check()
        finished = _to_gif(temporary) if path.suffix.lower() == ".gif" else temporary
        try:
            os.replace(finished, path)
        except OSError as error:
            raise storage_error(path, error) from error
    finally:
        for suffix in (".mp4", ".png", ".gif"):
            temporary.with_suffix(suffix).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Make the folder of a file and try whether the file could be written.

    Raises:
        UserError: it could not.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise UserError(f"out={path} is a folder: give a file's name in it, such as {path / 'video.mp4'}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise storage_error(path, error) from error


def _to_gif(video: Path) -> Path:
    """Turn a video into a GIF of two thirds its size with one palette, in two passes so that little memory is used."""
    palette, gif = video.with_suffix(".png"), video.with_suffix(".gif")
    ffmpeg, scale = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"], "scale=iw*2/3:-2:flags=lanczos"
    passes = (
        ["-i", str(video), "-vf", f"{scale},palettegen=stats_mode=full", str(palette)],
        ["-i", str(video), "-i", str(palette), "-lavfi", f"{scale}[x];[x][1:v]paletteuse=dither=none", str(gif)],
    )
    for arguments in passes:
        result = subprocess.run([*ffmpeg, *arguments], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise UserError(_REFUSED.format(video.parent))
    return gif
