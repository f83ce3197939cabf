"""The pipeline: scale, seeds, batches, edits, folders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import Images
from anydit.diffusion import paths, samplers
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.multistep import SDE, DPMSolverPP, UniPC
from anydit.diffusion.predictions import Noise, V
from anydit.diffusion.times import Respaced
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline, load
from anydit.model.conditioning import Field, Label
from anydit.model.dit import DiTConfig
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.tensors import Tokens, changed

PATHS = [paths.Linear(), paths.Cosine(), paths.LinearBeta(), paths.DDPM()]
SAMPLERS = [samplers.DDPM(), samplers.DDIM(), samplers.Euler(), samplers.Heun(), DPMSolverPP(), UniPC(), SDE()]


def pipeline(**options) -> Pipeline:
    """An untrained network, with weights everywhere, so that its answers depend on all that it is told."""
    model = DiTConfig(
        width=16,
        depth=2,
        heads=2,
        patch=(2, 2),
        channels=2,
        size=(4, 6),
        conditions={"label": Label(3, names=("a", "b", "c"))},
    )
    model = replace(model, **options.pop("model", {}))
    defaults = {"prediction": V(), "codec": Normalize(shift=(10.0, 100.0), scale=(2.0, 30.0)), "view": Images(0, 255)}
    pipe = Pipeline(PipelineConfig(model=model, **{"sampling": Sampling(steps=4), **defaults, **options}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pipe.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return pipe


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return pipeline()


def test_samples_have_the_data_s_shape_and_scale(pipe: Pipeline):
    x = pipe.sample(64, {"label": 1})
    assert x.shape == (64, 2, 4, 6) and x.dtype == torch.float32 and x.device.type == "cpu"
    assert x[:, 0].mean().item() == pytest.approx(10, abs=3) and x[:, 1].mean().item() == pytest.approx(100, abs=40)


def test_a_sample_depends_on_its_seed_and_condition_only(pipe: Pipeline):
    together = pipe.sample(7, {"label": [0, 1, 2, 0, 1, 2, 0]}, seed=3)
    in_twos = pipe.sample(7, {"label": [0, 1, 2, 0, 1, 2, 0]}, seed=3, batch=2)
    others = pipe.sample(7, {"label": [0, 2, 1, 0, 0, 0, 1]}, seed=3)
    first = pipe.sample(1, {"label": 0}, seed=3)
    torch.testing.assert_close(in_twos, together, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(first, together[:1], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(others[[0, 3]], together[[0, 3]], rtol=1e-4, atol=1e-3)
    assert (others[1] - together[1]).abs().max() > 0.01, "another condition, another sample"
    assert (pipe.sample(1, {"label": 0}, seed=4) - first).abs().max() > 0.1, "another seed, another sample"


def test_stochastic_samplers_too(pipe: Pipeline):
    how = Sampling(sampler=SDE(), steps=5)
    a = pipe.sample(5, {"label": 1}, sampling=how, seed=1)
    torch.testing.assert_close(pipe.sample(5, {"label": 1}, sampling=how, seed=1, batch=2), a, rtol=1e-4, atol=1e-3)


def test_names_stand_for_indices(pipe: Pipeline):
    assert torch.equal(pipe.sample(2, {"label": "b"}), pipe.sample(2, {"label": 1}))


def test_guidance_acts(pipe: Pipeline):
    plain = pipe.sample(2, {"label": 1}, guidance=1.0)
    assert torch.equal(pipe.sample(2, {"label": 1}), plain)
    assert (pipe.sample(2, {"label": 1}, guidance=3.0) - plain).abs().max() > 0.01
    unconditional = pipe.sample(2)
    torch.testing.assert_close(pipe.sample(2, {"label": 1}, guidance=0.0), unconditional, rtol=1e-4, atol=1e-3)


def test_another_size(pipe: Pipeline):
    assert pipe.sample(1, {"label": 0}, size=(8, 4)).shape == (1, 2, 8, 4)


def test_on_step_sees_every_step_and_may_stop(pipe: Pipeline):
    seen: list[tuple[int, float]] = []
    pipe.sample(3, {"label": 0}, steps=6, batch=2, on_step=lambda s: seen.append((s.index, s.t)))
    assert [i for i, _ in seen] == [*range(6), *range(6)] and seen[5][1] == 0

    def stop(step):
        if step.index == 2:
            raise KeyboardInterrupt

    calls = 0
    real = pipe.model.forward

    def counted(*arguments):
        nonlocal calls
        calls += 1
        return real(*arguments)

    pipe.model.forward = counted  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            pipe.sample(1, {"label": 0}, steps=50, on_step=stop)
    finally:
        pipe.model.forward = real  # type: ignore[method-assign]
    assert calls == 3


def test_inpainting_keeps_what_is_to_be_kept(pipe: Pipeline):
    x = pipe.sample(3, {"label": 0})
    keep = torch.zeros(3, 1, 4, 6, dtype=torch.bool)
    keep[..., :3] = True
    edited = pipe.edit(x, {"label": 2}, keep=keep, seed=9)
    assert torch.equal(edited[..., :3], x[..., :3])
    assert (edited[..., 3:] - x[..., 3:]).abs().max() > 0.1


def test_image_to_image_changes_more_the_stronger_it_is(pipe: Pipeline):
    x = pipe.sample(8, {"label": 0})
    moved = [(pipe.edit(x, {"label": 0}, strength=s, steps=10) - x).abs().mean().item() for s in (0.01, 0.4, 1.0)]
    assert moved[0] < 0.1 * moved[2] and moved[0] < moved[1]


def test_bytes_are_edited_as_the_numbers_they_are(pipe: Pipeline):
    x = torch.randint(0, 255, (2, 2, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.testing.assert_close(pipe.edit(x, {"label": 0}), pipe.edit(x.float(), {"label": 0}))


def test_a_saved_folder_gives_the_same_samples(pipe: Pipeline, tmp_path: Path):
    pipe.save(tmp_path)
    again = load(tmp_path, "cpu")
    assert again.config == pipe.config
    assert torch.equal(again.sample(2, {"label": 1}, seed=5), pipe.sample(2, {"label": 1}, seed=5))


def test_a_run_opens_without_its_data_s_code(pipe: Pipeline, tmp_path: Path):
    """Rule 9: what a folder says of data and training is not looked at."""
    pipe.save(tmp_path)
    content = json.loads((tmp_path / "pipeline.json").read_text(encoding="utf-8"))
    (tmp_path / "pipeline.json").unlink()
    content |= {"type": "Recipe", "data": {"type": "SomeUsersOwnData", "path": "x"}, "train": {"type": "Unheard"}}
    (tmp_path / "recipe.json").write_text(json.dumps(content), encoding="utf-8")
    assert load(tmp_path, "cpu").config == pipe.config


@pytest.mark.fault("T8")
def test_a_damaged_folder_is_refused(pipe: Pipeline, tmp_path: Path):
    pipe.save(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(tmp_path, "cpu")


def test_weights_of_another_model_of_the_same_shapes_are_refused(pipe: Pipeline, tmp_path: Path):
    """Other heads, path or codec leave every shape as it is, and so do other values."""
    pipe.save(tmp_path / "one")
    others = [
        pipeline(model={"heads": 1}),
        pipeline(path=paths.Cosine()),
        pipeline(codec=Normalize(shift=(0.0,), scale=(1.0,))),
        pipeline(),
    ]
    with torch.no_grad():
        next(others[-1].model.parameters()).add_(1)
    for other in others:
        other.save(tmp_path / "other")
        (tmp_path / "one" / "pipeline.json").write_bytes((tmp_path / "other" / "pipeline.json").read_bytes())
        with pytest.raises(ValueError, match=r"model\.safetensors of the id .*, as pipeline\.json has"):
            load(tmp_path / "one", "cpu")


def test_saving_the_same_twice_gives_the_same_files(pipe: Pipeline, tmp_path: Path):
    for name in ("a", "b"):
        pipe.save(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_every_sampler_on_every_path(path, sampler):
    pipe = pipeline(path=path)
    x = pipe.sample(2, {"label": 1}, sampling=Sampling(sampler=sampler, steps=5), guidance=Guidance(2.0, (0.2, 0.8)))
    assert x.isfinite().all()


def test_learned_variance():
    pipe = pipeline(model={"learned_variance": True}, path=paths.DDPM(), prediction=Noise())
    how = Sampling(sampler=samplers.DDPM(), steps=10, grid=Respaced())
    assert pipe.sample(2, {"label": 1}, sampling=how, guidance=2.0).shape == (2, 2, 4, 6)


@pytest.mark.parametrize("entry", [Pooled(), Cross(), Joint()])
def test_samples_follow_a_text_under_guidance(entry):
    """The weak half of a guided step is the learned null, which is what sampling without the text is."""
    pipe = pipeline(model={"conditions": {"text": Text(5, 4, entry)}})
    g = torch.Generator().manual_seed(0)
    text = Tokens(torch.randn(2, 3, 5, generator=g), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool(), torch.randn(2, 4))
    plain, free = pipe.sample(2, {"text": text}), pipe.sample(2)
    assert (plain - free).abs().max() > 0.1
    torch.testing.assert_close(pipe.sample(2, {"text": text}, guidance=0.0), free, rtol=1e-4, atol=1e-2)
    assert (pipe.sample(2, {"text": text}, guidance=3.0) - plain).abs().max() > 0.1
    one = changed(text, lambda part: part[1:])
    torch.testing.assert_close(pipe.sample(2, {"text": one})[1], plain[1], rtol=1e-4, atol=1e-2)


def test_a_negative_text_needs_a_scale():
    conditions, told = {"text": Text(width=4)}, Tokens(torch.ones(1, 2, 4), torch.ones(1, 2, dtype=torch.bool), None)
    negative = Guidance(negative={"text": "a nine"})
    said = r"guidance\.negative: got some at a scale of 1"
    with pytest.raises(ValueError, match=said):
        pipeline(model={"conditions": conditions}, sampling=Sampling(guidance=negative))
    pipe = pipeline(model={"conditions": conditions}, sampling=Sampling(steps=2, guidance=replace(negative, scale=2)))
    with pytest.raises(ValueError, match=said):
        pipe.sample(1, {"text": told}, guidance=negative)
    plain = pipe.sample(1, {"text": told}, guidance=1.0, seed=0)  # without an encoder: no negative text is read
    assert torch.equal(plain, pipe.sample(1, {"text": told}, guidance=Guidance(), seed=0))


def test_a_field_without_a_null_goes_with_guidance():
    conditions = {"label": Label(3), "low": Field(1, (0.0,), (1.0,), dropout=0.0)}
    pipe = pipeline(model={"conditions": conditions})
    x = pipe.sample(2, {"label": 1, "low": torch.ones(1, 4, 6)}, guidance=2.0)
    assert x.isfinite().all()


@pytest.mark.parametrize(
    "conditions", [{}, {"label": Label(3, dropout=0)}, {"label": Label(3, dropout=0), "low": Field(1, (0.0,), (1.0,))}]
)
def test_guidance_away_from_nothing_is_refused(conditions):
    pipe = pipeline(model={"conditions": conditions})
    cond = {name: {"label": 1, "low": torch.ones(1, 4, 6)}[name] for name in conditions}
    said = r"guidance\.scale: got {}, expected 1: the model has no condition with a null"
    with pytest.raises(ValueError, match=said.format(3)):
        pipe.sample(1, cond, guidance=3.0)
    with pytest.raises(ValueError, match=said.format(0)):
        pipe.edit(torch.zeros(1, 2, 4, 6), cond, guidance=0.0)
    with pytest.raises(ValueError, match=said.format(2)):
        pipeline(model={"conditions": conditions}, sampling=Sampling(guidance=Guidance(2.0)))
    plain = pipe.sample(1, cond)
    weak = pipeline(model={"conditions": conditions, "heads": 1}).denoiser()
    assert (pipe.sample(1, cond, guidance=3.0, weak=weak) - plain).abs().max() > 0.01


def test_a_weak_model_that_is_not_used_is_refused(pipe: Pipeline):
    for guidance in (None, 1.0):
        with pytest.raises(ValueError, match=r"guidance\.scale: got 1, which is no guidance, beside weak"):
            pipe.sample(1, {"label": 0}, guidance=guidance, weak=pipe.denoiser())


def refused(pipe: Pipeline, **arguments) -> Tensor:
    return pipe.sample(**{"n": 2, "cond": {"label": 0}, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n: got 0"),
        ({"steps": 0}, "steps: got 0"),
        ({"batch": 0}, "batch: got 0"),
        ({"guidance": float("nan")}, "scale: got nan"),
        ({"size": (5, 4)}, "size: got"),
        ({"size": (4,)}, "size: got"),
        ({"cond": {"label": 7}}, "label: got 7"),
    ],
)
def test_refuses_what_the_model_cannot_serve(pipe: Pipeline, arguments, message: str):
    with pytest.raises(ValueError, match=message):
        refused(pipe, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 0.0}, "strength: got 0"),
        ({"strength": 1.5}, "strength: got 1.5"),
        ({"keep": torch.ones(1, 1, 4, 6, dtype=torch.bool)}, "keep: got shape"),
        ({"keep": torch.ones(2, 1, 4, 6)}, "keep: got torch.float32, expected a boolean"),
    ],
)
def test_edit_refuses_what_it_cannot_do(pipe: Pipeline, arguments, message: str):
    with pytest.raises(ValueError, match=message):
        pipe.edit(torch.zeros(2, 2, 4, 6), {"label": 0}, **arguments)


def test_noise_prediction_on_a_path_to_pure_noise_is_refused():
    with pytest.raises(ValueError, match="prediction: got Noise on the path Linear"):
        pipeline(prediction=Noise())


def test_folders_that_are_not_models_are_refused(pipe: Pipeline, tmp_path: Path):
    with pytest.raises(ValueError, match="expected a run or an exported folder"):
        load(tmp_path / "nothing")
    pipe.save(tmp_path)
    save_file(pipeline(model={"width": 32}).model.state_dict(), tmp_path / "model.safetensors")
    content = json.loads((tmp_path / "pipeline.json").read_text(encoding="utf-8"))
    del content["id"]  # as a folder of before there were ids
    (tmp_path / "pipeline.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="does not fit the model"):
        load(tmp_path, "cpu")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path, "cpu")
