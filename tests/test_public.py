"""The public names: there, each the one that its module has, and none hidden by a package of the same name."""

import pkgutil
from importlib import import_module

import pytest

import anydit


@pytest.mark.parametrize("name", anydit.__all__)
def test_name_is_its_home_s(name: str):
    homes = [home for home, names in anydit._HOMES.items() if name in names]
    assert len(homes) == 1
    assert getattr(anydit, name) is getattr(import_module(homes[0]), name)


def test_every_home_is_public():
    assert sorted(n for names in anydit._HOMES.values() for n in names) == sorted(anydit.__all__)


def test_no_name_is_a_package_s():
    """Importing the package anydit.train would put it in the place of a function of that name."""
    assert not set(anydit.__all__) & {m.name for m in pkgutil.iter_modules(anydit.__path__)}


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'anydit' has no attribute 'Dit'"):
        anydit.Dit  # noqa: B018  # pyright: ignore[reportUnknownMemberType]
