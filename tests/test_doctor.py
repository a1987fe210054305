"""The doctor: one line a subject, a remedy for what is not right, exit status 1 only when something is wrong."""

from pathlib import Path

import pybullet
import pytest

from multiravens import doctor
from multiravens.doctor import Finding, Mark
from multiravens.sim import probe

SUBJECTS = ["Python", "pybullet", "renderer", "ffmpeg", "GPU", "disk", "memory", "cores"]


def found(data: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in doctor.examine(data)}


def test_a_machine_that_passes_the_tests_has_nothing_wrong(tmp_path: Path) -> None:
    findings = found(tmp_path / "new" / "data")
    assert list(findings) == SUBJECTS
    assert [finding for finding in findings.values() if finding.mark is Mark.WRONG] == []
    assert "numpy-enabled" in findings["pybullet"].found
    assert not (tmp_path / "new").exists()


def test_the_report_is_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([f"data={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(subject) for line in lines) for subject in SUBJECTS)
    assert len(lines) <= 24


def test_pybullet_without_numpy_is_wrong_and_tells_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "numpy_enabled", lambda: False)
    assert found(tmp_path)["pybullet"].mark is Mark.WRONG
    assert "--no-build-isolation" in found(tmp_path)["pybullet"].remedy
    assert doctor.main([f"data={tmp_path}"]) == 1
    assert "wrong" in capsys.readouterr().out


def test_a_slow_renderer_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "renderer_milliseconds", lambda: 250.0)
    finding = found(tmp_path)["renderer"]
    assert (finding.mark, "250.0 ms" in finding.found) == (Mark.WARN, True)


def test_a_check_that_breaks_is_a_wrong_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise RuntimeError("no [display]\nsecond line")

    monkeypatch.setattr(probe, "renderer_milliseconds", broken)
    assert found(tmp_path)["renderer"][1:3] == (Mark.WRONG, "RuntimeError: no [display]")


def test_a_data_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert found(file / "data")["disk"].mark is Mark.WRONG
    assert found(Path("/proc/data"))["disk"].mark is Mark.WRONG


def test_a_card_that_torch_cannot_use_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_nvidia_cards", lambda: "A Card, 24 GiB")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    finding = found(tmp_path)["GPU"]
    assert finding.mark is Mark.WARN
    assert "A Card" in finding.found


def test_a_mistyped_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["dta=x"]) == doctor.main(["data="]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert doctor.main(["--help"]) == 0
    assert "data=DIR" in capsys.readouterr().out


def test_the_renderer_probe_draws_every_box(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    draw = pybullet.getCameraImage

    def watched(*arguments: object, **options: object) -> object:
        picture = draw(*arguments, **options)
        seen.append(len(set(picture[4].ravel()) - {-1}))
        return picture

    monkeypatch.setattr(pybullet, "getCameraImage", watched)
    assert probe.renderer_milliseconds(frames=2) > 0.0
    assert seen == [10, 10]
