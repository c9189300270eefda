"""A checkpoint comes back as it was saved, or is refused with a reason."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import ModelError
from models import checkpoint as checkpoints
from models.checkpoint import CARD_NAME, FORMAT_VERSION, load, read_card, save
from models.forecaster import ForecasterConfig, ForecasterNet

SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "graph", ForecasterNet(SMALL, seed=3), {"seed": 3, "scores": {"validation_loss": 0.5}})
    return tmp_path / "graph"


def weights_of(folder: Path) -> Path:
    (path,) = folder.glob("weights-*.safetensors")
    return path


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD_NAME).read_text())
    (folder / CARD_NAME).write_text(json.dumps({**card, **changes}))


def test_what_is_saved_is_loaded(folder: Path) -> None:
    checkpoint = load(folder)
    assert checkpoint is not None
    for name, tensor in ForecasterNet(SMALL, seed=3).state_dict().items():
        assert torch.equal(tensor, checkpoint.net.state_dict()[name]), name
    assert checkpoint.card["scores"] == {"validation_loss": 0.5}
    assert not checkpoint.net.training


def test_saving_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    save(folder, ForecasterNet(SMALL, seed=4), {"seed": 4})
    assert len(list(folder.iterdir())) == 2
    checkpoint = load(folder)
    assert checkpoint is not None
    assert checkpoint.card["seed"] == 4


def test_others_can_read_what_was_saved(tmp_path: Path) -> None:
    # Triton, or a service, often runs as another user than who trained or exported.
    before = os.umask(0o022)
    try:
        save(tmp_path, ForecasterNet(SMALL), {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert read_card(tmp_path / "missing") is None


def test_flipped_bytes_are_noticed(folder: Path) -> None:
    content = bytearray(weights_of(folder).read_bytes())
    content[-1] ^= 1
    weights_of(folder).write_bytes(content)
    with pytest.raises(ModelError, match="corrupt"):
        load(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    weights_of(folder).unlink()
    with pytest.raises(ModelError, match="cannot read the weights") as error:
        load(folder)
    assert error.value.fix is not None


@pytest.mark.parametrize("seeds", [[4], [4, 5], [4, 3]])
def test_weights_replaced_after_their_card_was_read(
    folder: Path, seeds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(seeds)

    def read_and_replace(where: Path) -> dict[str, Any] | None:
        card = read_card(where)
        if left:
            save(folder, ForecasterNet(SMALL, seed=left[0]), {"seed": left.pop(0)})
        return card

    monkeypatch.setattr(checkpoints, "read_card", read_and_replace)
    checkpoint = load(folder)
    assert checkpoint is not None
    assert checkpoint.card["seed"] == seeds[-1]
    expected = ForecasterNet(SMALL, seed=seeds[-1]).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in checkpoint.net.state_dict().items())


def test_weights_that_are_replaced_again_and_again_are_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def read_and_replace(where: Path) -> dict[str, Any] | None:
        card = read_card(where)
        reads.append(len(reads))
        save(folder, ForecasterNet(SMALL, seed=100 + len(reads)), {})
        return card

    monkeypatch.setattr(checkpoints, "read_card", read_and_replace)
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(folder)
    assert 2 < len(reads) < 100


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "\x00\x01"])
def test_a_damaged_card_is_noticed(folder: Path, text: str) -> None:
    (folder / CARD_NAME).write_text(text)
    with pytest.raises(ModelError, match="card is corrupt"):
        load(folder)


def test_a_checkpoint_of_a_newer_version_asks_for_an_upgrade(folder: Path) -> None:
    edit_card(folder, format=FORMAT_VERSION + 1)
    with pytest.raises(ModelError, match="of a newer version") as caught:
        load(folder)
    assert "upgrade graphtide" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"format": 1}, {"schema": 2}, {"metrics": ["events"]}, {"quantile_levels": [0.5]}, {"features": 3}]
)
def test_a_card_of_another_version_is_refused(folder: Path, changes: dict[str, object]) -> None:
    edit_card(folder, **changes)
    with pytest.raises(ModelError, match="does not fit this version"):
        load(folder)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    edit_card(folder, architecture={**SMALL.as_json(), "d_model": 32})
    with pytest.raises(ModelError, match="do not fit the architecture"):
        load(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write the checkpoint"):
        save(tmp_path / "file" / "graph", ForecasterNet(SMALL), {})


def test_who_saves_at_the_same_time_does_not_remove_the_weights_of_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, first_is_between, second_is_done = checkpoints._write, threading.Event(), threading.Event()

    def write_slowly(path: Path, content: bytes) -> None:
        if path.name == CARD_NAME and not first_is_between.is_set():
            first_is_between.set()
            # Without turns, the other one is done long before.
            second_is_done.wait(0.3)
        write(path, content)

    def save_second() -> None:
        first_is_between.wait()
        save(folder, ForecasterNet(SMALL, seed=5), {"seed": 5})
        second_is_done.set()

    monkeypatch.setattr(checkpoints, "_write", write_slowly)
    second = threading.Thread(target=save_second)
    second.start()
    save(folder, ForecasterNet(SMALL, seed=4), {"seed": 4})
    second.join()
    checkpoint = load(folder)
    assert checkpoint is not None
    assert checkpoint.card["seed"] == 5
    assert len(list(folder.iterdir())) == 2
