from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_ext.trainers.rdcl_pictures import draw_relations
from nnunet_ext.trainers.relation_monitor import GENERAL, NON_TARGET, TARGET
from nnunet_ext.utilities.pictures import find_picture


def test_relations_are_drawn_and_told(tmp_path: Path) -> None:
    identity, ones = np.eye(6, dtype=np.float32), np.ones((6, 6), dtype=np.float32)
    picture = draw_relations({NON_TARGET: identity, GENERAL: identity, TARGET: ones}, tmp_path / "pictures")
    assert "mean |R_G(non-target) - R_G(target)| is 0.0000" in picture.alt
    assert "mean |R_G(target) - R_T(target)| is 0.8333" in picture.alt
    with Image.open(find_picture(tmp_path / "pictures", picture)) as image:
        assert image.width > 600 and len(image.convert("RGB").getcolors(2**24)) > 10


def test_without_non_target_images(tmp_path: Path) -> None:
    picture = draw_relations({GENERAL: np.eye(3, dtype=np.float32), TARGET: np.eye(3, dtype=np.float32)}, tmp_path)
    assert picture.alt == "mean |R_G(target) - R_T(target)| is 0.0000"
