"""What tasks on photographs have in common: the user's folders, or scikit-image's photographs.

class MyTask(OnPhotographs): ...        with --train-data, --test-data and --validation-data
"""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass
from pathlib import Path

from bench import PictureError, Pictures, Task, location

# The colour photographs inside scikit-image. The stereo pair is one scene with the most detail
# and stays on the training side. Its other colour pictures (hubble_deep_field, retina, ihc) are no
# photographs and are left out: trained with them, the quick codec is worse on real photographs.
ALWAYS_TEST = "astronaut.png"
DRAWN = ("chelsea.png", "coffee.png", "rocket.jpg")  # one of these joins the test pictures
ALWAYS_TRAIN = ("motorcycle_left.png", "motorcycle_right.png")
SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class OnPhotographs(Task):
    """Without a folder of its own there is no validation split."""

    train_data: str = location("folder of training pictures")
    test_data: str = location("folder of test pictures")
    validation_data: str = location("folder of pictures for --split validation")

    def pictures(self, split: str, crop: int = 0) -> Pictures:
        """A split of the data, for training in crops of `crop` pixels a side."""
        folder = getattr(self, f"{split}_data", "")
        return Pictures.folder(Path(folder), crop) if folder else photographs(split, crop)


def photographs(split: str, crop: int = 0) -> Pictures:
    """The photographs that come with scikit-image; nothing is downloaded.

    Split by scene: "test" is the astronaut and one of chelsea, coffee and rocket, drawn with
    `SPLIT_SEED`; "train" is the others. The motorcycle, two views of one scene, is always there.
    """
    drawn = DRAWN[int(random.Random(SPLIT_SEED).random() * len(DRAWN))]
    train = sorted({*DRAWN, *ALWAYS_TRAIN} - {drawn})
    splits = {"train": train, "test": [ALWAYS_TEST, drawn]}
    if split not in splits:
        raise ValueError(
            f"the default photographs have no {split} split, they are too few: give pictures of "
            f"your own with --{split}-data DIR"
        )
    package = importlib.util.find_spec("skimage")  # finds without importing: that takes a second
    if package is None or package.origin is None:
        raise PictureError(
            "the default photographs come with scikit-image, which is not installed: "
            "pip install scikit-image, or give folders with --train-data and --test-data"
        )
    folder = Path(package.origin).parent / "data"
    files = [folder / name for name in splits[split]]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise PictureError(
            f"the installed scikit-image has no {', '.join(missing)} in {folder}: pip install "
            "'scikit-image<0.27', or give folders with --train-data and --test-data"
        )
    return Pictures(files, crop, names=[file.stem for file in files])
