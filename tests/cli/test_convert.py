"""`anydit convert`, there and back through each form."""

import pytest
import torch

from anydit.cli.convert import run
from anydit.codecs import Normalize
from anydit.diffusion import paths, predictions
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline, load
from anydit.interop.sit import TIME
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.weights import load_tensors


@pytest.fixture
def model(tmp_path):
    config = DiTConfig(
        width=24,
        depth=1,
        heads=2,
        patch=(2, 2),
        channels=4,
        size=(4, 4),
        conditions={"label": Label(5)},
        learned_variance=True,
    )
    codec = Normalize((0.0,), (1.0,))
    pipe = Pipeline(PipelineConfig(model=config, path=paths.DDPM(), prediction=predictions.Noise(), codec=codec))
    with torch.no_grad():
        for p in pipe.model.parameters():
            p.normal_(std=0.2)
    pipe.save(tmp_path / "model")
    return tmp_path / "model"


def test_to_dit_and_back(model, tmp_path, capsys):
    assert run(["to-dit", str(model), "--to", str(tmp_path / "model.pt")]) == 0
    assert run(["dit", str(tmp_path / "model.pt"), "--to", str(tmp_path / "back"), "--heads", "2"]) == 0
    ours, back = load(model, "cpu").model.state_dict(), load(tmp_path / "back", "cpu").model.state_dict()
    assert ours.keys() == back.keys() and all(torch.equal(ours[k], back[k]) for k in ours)
    assert "anydit sample" in capsys.readouterr().out


def test_pickled_tensors_to_safetensors(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    torch.save(tensors, tmp_path / "a.pth")
    assert run(["safetensors", str(tmp_path / "a.pth"), "--to", str(tmp_path / "a.safetensors")]) == 0
    got = load_tensors(tmp_path / "a.safetensors")
    assert got.keys() == tensors.keys() and all(torch.equal(got[k], tensors[k]) for k in got)
    torch.save({"step": 3, "a": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="expected a dictionary of tensors"):
        run(["safetensors", str(tmp_path / "b.pth"), "--to", str(tmp_path / "b.safetensors")])
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(("form", "time"), [("sit", TIME), ("lightningdit", TIME)])
def test_flow_checkpoints_and_back(form, time, tmp_path):
    config = DiTConfig(24, 1, 2, (2, 2), channels=4, size=(4, 4), conditions={"label": Label(5)}, time=time)
    Pipeline(PipelineConfig(model=config, codec=Normalize((0.0,), (1.0,)))).save(tmp_path / "model")
    assert run([f"to-{form}", str(tmp_path / "model"), "--to", str(tmp_path / "model.pt")]) == 0
    assert run([form, str(tmp_path / "model.pt"), "--to", str(tmp_path / "back"), "--heads", "2"]) == 0
    ours, back = (load(tmp_path / name, "cpu").model.state_dict() for name in ("model", "back"))
    assert ours.keys() == back.keys() and all(torch.equal(ours[k], back[k]) for k in ours)


def test_refusals(model, tmp_path):
    with pytest.raises(ValueError, match="which exists"):
        run(["to-dit", str(model), "--to", str(model)])
    with pytest.raises(ValueError, match="does not exist"):
        run(["dit", str(tmp_path / "none.pt"), "--to", str(tmp_path / "x")])
    with pytest.raises(
        ValueError, match="--raw: got it with the form to-dit, expected it with dit, sit, lightningdit alone"
    ):
        run(["to-dit", str(model), "--to", str(tmp_path / "x.pt"), "--raw"])
    with pytest.raises(ValueError, match="--latents: got it with the form sit, expected it with lightningdit alone"):
        run(["sit", str(model), "--to", str(tmp_path / "x"), "--latents", "stats.pt"])
    with pytest.raises(ValueError, match="invalid choice: 'nonsense'"):
        run(["nonsense", str(model), "--to", "x"])


def test_the_nearest_option_is_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"^unrecognized arguments: --too x; perhaps you meant --to$"):
        run(["to-dit", str(model), "--to", str(tmp_path / "model.pt"), "--too", "x"])
