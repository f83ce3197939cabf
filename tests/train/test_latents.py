"""Latents that are encoded once: the same as those encoded with each batch, kept, and made anew when they must be."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Latents
from anydit.data import Arrays, ArraySamples, Digits
from anydit.data.base import Facts
from anydit.data.mirrored import Mirrored
from anydit.tensors import Batch, Tokens
from anydit.train import latents
from anydit.train.latents import Cached, Encoding, Live
from anydit.train.loop import train
from anydit.train.resolve import surveyed
from tests.train.tiny import losses, tiny
from tests.train.tiny_codec import tiny_codec, tiny_latent

CPU = torch.device("cpu")


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("codec") / "codec"
    train(tiny_codec(steps=2), out, "cpu", silent)
    return out


@pytest.fixture
def encoding(codec: Path) -> Encoding:
    samples = Digits().open("train")
    config = Latents(path=codec).measured(surveyed(samples, tiny().view, CPU))
    return Encoding(samples, config, config.restored(), CPU)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "latents"


def test_what_is_read_is_what_would_be_encoded(encoding: Encoding, folder: Path):
    cached, identity = Cached().opened(encoding)
    live, codec = Live().opened(encoding)
    assert live is encoding.samples and codec is encoding.codec
    assert len(cached) == len(live) and cached.facts.channels == 3 and cached.facts.size == (4, 4)
    assert cached.facts.classes == live.facts.classes
    for ids in (torch.arange(5), torch.tensor([1400, 3, 3, 77])):
        ours, theirs = cached.read(ids), live.read(ids)
        torch.testing.assert_close(identity.encode(ours.x), codec.encode(theirs.x), rtol=1e-5, atol=1e-5)
        assert ours.x.dtype == torch.float32 and torch.equal(ours.tensor("label"), theirs.tensor("label"))
        assert torch.equal(ours.ids, ids)


def test_texts_are_kept(encoding: Encoding, folder: Path):
    x = np.zeros((5, 1, 8, 8), np.float32)
    samples = ArraySamples(x, Facts(1, (8, 8), texts=("text",)), texts={"text": ["a", "über", "", "c d", "日本"]})
    cached, _ = Cached(flip=True).opened(replace(encoding, samples=samples))
    assert cached.read(torch.tensor([4, 1, 6])).texts == {"text": ["日本", "über", "über"]}


def test_training_is_the_same(codec: Path, folder: Path, tmp_path: Path):
    """The learning curve does not tell whether latents were encoded with each batch or before."""
    train(tiny_latent(codec), tmp_path / "live", "cpu", silent)
    train(tiny_latent(codec, latents=Cached()), tmp_path / "cached", "cpu", silent)
    one, other = (torch.tensor([float.fromhex(v) for _, v, _ in losses(tmp_path / n)]) for n in ("live", "cached"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert [ids for *_, ids in losses(tmp_path / "live")] == [ids for *_, ids in losses(tmp_path / "cached")]


def read_only(*_: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_it_is_made_once(encoding: Encoding, folder: Path, monkeypatch: pytest.MonkeyPatch):
    Cached().opened(encoding)

    def never(*_: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(latents, "_encoded", never)
    monkeypatch.setattr(os, "utime", read_only)
    cached, _ = Cached().opened(encoding)
    assert isinstance(cached, ArraySamples) and len(list(folder.iterdir())) == 1
    base = cached.x.base
    assert isinstance(base, np.memmap), "mapped, not read into memory"


def test_another_codec_other_data_and_other_options_are_made_anew(encoding: Encoding, folder: Path):
    Cached().opened(encoding)
    with torch.no_grad():
        next(encoding.codec.parameters()).add_(0.1)
    Cached().opened(encoding)
    Cached(half=True).opened(encoding)
    Cached(flip=True).opened(encoding)
    samples = encoding.samples
    assert isinstance(samples, ArraySamples) and samples.rows is not None
    Cached().opened(replace(encoding, samples=replace(samples, rows=samples.rows[1:])))
    assert len(list(folder.iterdir())) == 5
    assert not [p for p in folder.iterdir() if p.name.startswith(".")], "nothing half is left"


def test_flips_are_encoded_too(encoding: Encoding, folder: Path):
    cached, _ = Cached(flip=True).opened(encoding)
    n = len(encoding.samples)
    assert len(cached) == 2 * n
    real = encoding.samples.read(torch.tensor([5]))
    z = encoding.codec.encode(torch.cat([real.x, real.x.flip(-1)]))
    both = cached.read(torch.tensor([5, n + 5]))
    torch.testing.assert_close(both.x, z, rtol=1e-5, atol=1e-5)
    assert both.tensor("label").tolist() == real.tensor("label").tolist() * 2


def test_half_the_bits(encoding: Encoding, folder: Path):
    whole, half = (Cached(half=h).opened(encoding)[0] for h in (False, True))
    assert isinstance(half, ArraySamples) and half.x.dtype == np.float16
    ids = torch.arange(50)
    a, b = whole.read(ids).x, half.read(ids).x
    assert b.dtype == torch.float32 and not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.fault("T8")
@pytest.mark.parametrize("file", ["latents.npy", "known-0.npy", "index.json"])
def test_a_damaged_cache_is_made_anew(encoding: Encoding, folder: Path, file: str):
    """A file that is cut short or gone is never read as if it were whole."""
    expected = Cached().opened(encoding)[0].read(torch.arange(9)).x
    found = next(folder.iterdir()) / file
    found.write_bytes(found.read_bytes()[:-7])
    assert torch.equal(Cached().opened(encoding)[0].read(torch.arange(9)).x, expected)
    found.unlink()
    assert torch.equal(Cached().opened(encoding)[0].read(torch.arange(9)).x, expected)


@pytest.mark.fault("T3")
def test_what_stops_half_way_leaves_nothing(encoding: Encoding, folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = latents._encoded

    def some(what: Encoding):
        for i, each in enumerate(real(what)):
            if i == 2:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(latents, "_encoded", some)
    with pytest.raises(KeyboardInterrupt):
        Cached().opened(encoding)
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(encoding: Encoding, tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"train\.latents\.folder: got .*file/latents, which cannot be written"):
        Cached(folder=tmp_path / "file").opened(encoding)


def test_a_full_disk_is_refused_before_it_is_filled(encoding: Encoding, folder: Path, monkeypatch: pytest.MonkeyPatch):
    usage = latents.shutil.disk_usage("/")
    monkeypatch.setattr(latents.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"with 0\.0 GB free, expected 0\.0 GB for the latents of 14"):
        Cached().opened(encoding)


def test_what_has_no_left_or_is_mirrored_already_is_refused(encoding: Encoding, tmp_path: Path):
    with pytest.raises(ValueError, match=r"data\.flip mirrors the data already"):
        Cached(flip=True).opened(replace(encoding, samples=Mirrored(encoding.samples)))
    np.save(tmp_path / "a.npy", np.zeros((30, 1, 8), np.float32))
    series = Arrays(path=tmp_path / "a.npy").open("train")
    with pytest.raises(ValueError, match="which has no left"):
        Cached(flip=True).opened(replace(encoding, samples=series))


def test_tokens_of_the_datas_own_are_not_kept(encoding: Encoding):
    class Told:
        facts = encoding.samples.facts

        def __len__(self) -> int:
            return len(encoding.samples)

        def read(self, ids: Tensor) -> Batch:
            tokens = Tokens(torch.zeros(len(ids), 2, 3), torch.ones(len(ids), 2, dtype=torch.bool), None)
            return replace(encoding.samples.read(ids), cond={"text": tokens})

    with pytest.raises(ValueError, match=r"train.latents: got Cached for data with text as tokens.*expected Live"):
        Cached().opened(replace(encoding, samples=Told()))


def test_what_is_aligned_with_the_data_is_not_mirrored_alone(encoding: Encoding):
    x = np.zeros((3, 1, 8, 8), np.float32)
    samples = ArraySamples(x, Facts(1, (8, 8), fields={"low": 1}), {"low": torch.zeros(3, 1, 8, 8)})
    with pytest.raises(ValueError, match=r"train\.latents\.flip: got True, expected False: low would not be mirrored"):
        Cached(flip=True).opened(replace(encoding, samples=samples))
