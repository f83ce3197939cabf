"""The guards that the other tests rely on do guard."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jaxtyping
import pytest
import torch

from anydit.diffusion.paths import Linear
from tests.conftest import fault_numbers


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 443)])
def test_no_network(address: tuple[str, int]):
    with socket.socket() as s:
        s.settimeout(0.5)
        with pytest.raises(ConnectionRefusedError, match="tests use no network"):
            s.connect(address)
        with pytest.raises(ConnectionRefusedError, match="tests use no network"):
            s.connect_ex(address)


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        with server.accept()[0] as other:
            other.send(b"x")
        assert client.recv(1) == b"x"


def test_caches_are_thrown_away():
    for name in ("ANYDIT_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        assert Path(os.environ[name]).is_relative_to(tempfile.gettempdir())


def test_one_thread():
    assert torch.get_num_threads() == 1


@pytest.mark.gpu
def test_gpu_tests_run_only_with_one():
    assert torch.cuda.is_available()


def test_shapes_and_types_are_checked():
    path, t = Linear(), torch.rand(2)
    x = torch.rand(2, 3, 4, 4)
    path.noised(x, torch.randn_like(x), t)
    with pytest.raises(jaxtyping.TypeCheckError):
        path.noised(x, torch.randn(2, 3, 4, 5), t)
    with pytest.raises(jaxtyping.TypeCheckError):
        path.noised(x, torch.randn_like(x), "noise")  # type: ignore[arg-type]


def test_a_fault_is_named_by_its_numbers():
    assert fault_numbers("test_it", ("T8", "S1")) == ["T8", "S1"]


def test_tests_with_such_a_fault_are_not_collected(tmp_path: Path):
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    test = "import pytest\n@pytest.mark.fault(8)\ndef test_it(): pass\n"
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 4 and "expected numbers such as T8" in done.stderr


@pytest.mark.parametrize("numbers", [(), ("T8", "disk"), (8,)], ids=str)
def test_a_fault_without_its_number_is_refused(numbers: tuple[object, ...]):
    with pytest.raises(pytest.UsageError, match=r"test_it: fault\(.*\), expected numbers such as T8"):
        fault_numbers("test_it", numbers)
