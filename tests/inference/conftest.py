"""The tiny trained model and its images."""

from toy_model import images, trained_model

__all__ = ["images", "trained_model"]
