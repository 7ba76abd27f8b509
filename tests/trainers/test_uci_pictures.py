from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_ext.trainers.uci_pictures import draw_prototype_usage
from nnunet_ext.utilities.pictures import find_picture


def test_usage_is_drawn_and_told(tmp_path: Path) -> None:
    usage = {("ct", 0): np.array([0.0, 30, 10, 0]), ("xray", 1): np.array([5.0, 5, 5, 5])}
    picture = draw_prototype_usage(usage, tmp_path / "pictures")
    assert "CT, block 1: 2 of 4 prototypes used, the first takes 75% of the tokens" in picture.alt
    assert "X-ray, block 2: 4 of 4 prototypes used, the first takes 25%" in picture.alt
    with Image.open(find_picture(tmp_path / "pictures", picture)) as image:
        assert image.width > 600 and len(image.convert("RGB").getcolors(2**24)) > 10


def test_a_bank_that_saw_nothing(tmp_path: Path) -> None:
    assert "0 of 3" in draw_prototype_usage({("ct", 0): np.zeros(3)}, tmp_path).alt
