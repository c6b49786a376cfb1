"""The reference, under the name that results of earlier versions have for it."""

from bench import FixedGrid

__all__ = ["FixedGrid"]
