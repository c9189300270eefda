"""The files of a checkpoint are read as they belong together, whoever saves between."""

from pathlib import Path

import pytest

from forecasting.backups import taking
from forecasting.scaleout.reports import model_files
from infra.errors import GraphtideError, ModelError
from models import checkpoint, checkpoint_files
from models.checkpoint_files import CARD_NAME, read_card_bytes, read_files
from models.forecaster import ForecasterConfig, ForecasterNet

SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16)


def save(folder: Path, seed: int) -> checkpoint.Checkpoint:
    return checkpoint.save(folder, ForecasterNet(SMALL, seed=seed), {"seed": seed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "models" / "toy", 3)
    return tmp_path / "models" / "toy"


@pytest.fixture(params=[[4], [4, 5], [4, 3]])
def seeds(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the seeds of models that are saved one by one, each just after a card was read."""
    left = list(request.param)

    def read_and_replace(where: Path) -> bytes | None:
        card = read_card_bytes(where)
        if left:
            save(folder, left.pop(0))
        return card

    monkeypatch.setattr(checkpoint_files, "read_card_bytes", read_and_replace)
    monkeypatch.setattr(taking, "read_card_bytes", read_and_replace)
    return list(request.param)


def seed_of(folder: Path) -> int:
    found = checkpoint.load(folder)
    assert found is not None
    return int(found.card["seed"])


def test_a_report_elsewhere_gets_one_whole_model_while_another_is_saved(
    folder: Path, seeds: list[int], tmp_path: Path
) -> None:
    files = model_files(tmp_path / "models", "toy")
    (there := tmp_path / "there").mkdir()
    for name, content in files.items():
        (there / name).write_bytes(content)
    assert len(files) == 2
    assert seed_of(there) == seeds[-1]


def test_a_backup_holds_one_whole_model_while_another_is_saved(folder: Path, seeds: list[int], tmp_path: Path) -> None:
    taking._copy_model(folder, tmp_path / "there")
    assert len(list((tmp_path / "there").iterdir())) == 2
    assert seed_of(tmp_path / "there") == seeds[-1]


def test_a_damaged_model_is_read_as_it_is(folder: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return model_files(tmp_path / "models", "toy")

    (weights,) = folder.glob("weights-*")
    weights.write_bytes(b"no tensors")
    card = (folder / CARD_NAME).read_bytes()
    assert files() == {CARD_NAME: card, weights.name: b"no tensors"}
    weights.unlink()
    assert files() == {CARD_NAME: card}
    for text in (b"", b"{", b"[]", b"{}", b'{"weights": 3}', b'{"weights": ""}', b'{"weights": "\\u0000"}', b"\xff"):
        (folder / CARD_NAME).write_bytes(text)
        assert files() == {CARD_NAME: text}
        with pytest.raises(ModelError):
            taking._copy_model(folder, tmp_path / "there")
    (folder / CARD_NAME).unlink()
    assert files() == read_files(tmp_path / "nothing") == {}


def test_a_backup_of_a_model_whose_weights_are_lost_fails(folder: Path, tmp_path: Path) -> None:
    (weights,) = folder.glob("weights-*")
    weights.unlink()
    with pytest.raises(GraphtideError, match="is not whole"):
        taking._copy_model(folder, tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_a_model_that_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / CARD_NAME).unlink()
    (folder / CARD_NAME).mkdir()
    with pytest.raises(ModelError, match="cannot read the model of 'toy'"):
        model_files(tmp_path / "models", "toy")
