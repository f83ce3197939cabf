"""Priors of slices end sampling below the noise of what is measured."""

import pytest

from anydit.codecs import Normalize
from anydit.recipes.slices import brain_slices, brain_slices_mri, slices


@pytest.mark.parametrize("make", [slices, brain_slices, brain_slices_mri])
def test_the_last_noise_is_at_most_a_hundredth_of_white(make):
    recipe = make()
    *_, last, end = recipe.sampling.grid.times(recipe.path, recipe.sampling.steps).split(1)
    assert end == 0 and isinstance(recipe.codec, Normalize)
    noise = (recipe.path.sigma(last) / recipe.path.alpha(last)).item()
    # In the codec's scale, which is half of black to white, or a deviation: that is at most half of it.
    assert noise / 2 <= 0.01
    assert noise == pytest.approx(0.01, rel=1e-3)
