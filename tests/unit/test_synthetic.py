"""Synthetic images: repeatable, different from each other, with the spectrum of photographs."""

import numpy as np
import pytest

from helpers.images import synthetic


def test_images_are_repeatable_and_differ_from_each_other():
    images = synthetic.photograph_like(4, 64)
    assert images.dtype == np.uint8 and images.shape == (4, 64, 64, 3)
    assert np.array_equal(images[:2], synthetic.photograph_like(2, 64))
    assert not np.array_equal(images, synthetic.photograph_like(4, 64, seed=1))
    differences = [np.abs(a.astype(int) - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(differences) > 10


@pytest.mark.parametrize("size", [2, 24, 225])
def test_even_odd_and_small_sizes(size):
    assert synthetic.photograph_like(2, size).shape == (2, size, size, 3)


def test_one_pixel_is_an_error():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        synthetic.photograph_like(2, 1)


def test_the_spectrum_falls_like_that_of_photographs():
    """The slope of log amplitude over log frequency is about -1; that of white noise is 0."""
    gray = synthetic.photograph_like(12, 128).mean(axis=-1)
    gray -= gray.mean(axis=(1, 2), keepdims=True)
    amplitude = np.abs(np.fft.fft2(gray)).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    inside = (frequency > 0.02) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[inside]), np.log(amplitude[inside]), 1)[0]
    assert -1.5 < slope < -0.8


def test_colors_and_contrast_are_used():
    images = synthetic.photograph_like(8, 64)
    assert images.min() < 20 and images.max() > 235
    channels = images.astype(float)
    # For the photographs of the sample it is 30.
    assert 15 < np.abs(channels[..., 0] - channels[..., 2]).mean() < 40
