"""Every published family gives its own output here, and what is written gives it there."""

import pytest

from tests.interop.families import FAMILIES, relative


@pytest.mark.parametrize("name", FAMILIES)
def test_same_output_as_the_original(name: str) -> None:
    assert relative(FAMILIES[name].outputs()) <= 1e-5


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.again])
def test_what_is_written_gives_the_same_output_there(name: str) -> None:
    again = FAMILIES[name].again
    assert again is not None
    assert relative(again()) <= 1e-5
