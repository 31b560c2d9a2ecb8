"""A demonstration replaces only its own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_drug_discovery.lib import demo
from clinical_drug_discovery.lib.demo import MARK, run_demo
from clinical_drug_discovery.system.errors import InputError


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Replace the training, which the test of the command covers; return whether it overwrites."""
    overwrites: list[bool] = []

    def generate(
        model: str, edges: Path, output: Path, *, overwrite: bool, **options: object
    ) -> None:
        overwrites.append(overwrite)
        (output.parent / f"{output.stem}_model").mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "embed_model", generate)
    return overwrites


def test_a_demo_replaces_what_a_stopped_demo_has_left(tmp_path: Path, trained: list[bool]) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path / "demo")
    assert trained == [True, True]
    assert (tmp_path / "demo" / MARK).is_file()


def test_a_demo_does_not_touch_a_directory_with_other_files(
    tmp_path: Path, trained: list[bool]
) -> None:
    (tmp_path / "graphsage.parquet").write_text("mine")
    with pytest.raises(InputError, match=r"output_dir \(got .* must be new, empty or made by"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["graphsage.parquet"]
    assert trained == []


@pytest.mark.parametrize("options", [{"num_epochs": 0}, {"seed": -1}, {"top": 0}])
def test_a_wrong_parameter_leaves_nothing(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InputError):
        run_demo(tmp_path / "demo", **options)
    assert not (tmp_path / "demo").exists()
