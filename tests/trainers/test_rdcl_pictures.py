from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_ext.trainers.rdcl_pictures import draw_relation_course, draw_relations
from nnunet_ext.utilities.pictures import find_picture
from nnunet_ext.utilities.relation_record import GENERAL, NON_TARGET, TARGET


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


def test_the_course_is_drawn_and_told(tmp_path: Path) -> None:
    logging = {
        "train_losses": [1.0, 0.5],
        "relation/general": [0.5, 0.125],
        "relation/target": [0.25, 0.375],
        "relation/general_rank": [0.75, 0.625],
        "relation/weight": [0.01, 0.1],
    }
    picture = draw_relation_course(logging, tmp_path / "pictures")
    assert picture.title == "Relations over epochs"
    assert picture.alt == (
        "d(R_G(non-target), R_G(target)) goes from 0.5 to 0.125; d(R_G(target), R_T(target)) goes from 0.25 to 0.375;"
        " rank goes from 0.75 to 0.625"
    )
    with Image.open(find_picture(tmp_path / "pictures", picture)) as image:
        assert image.width > 600 and len(image.convert("RGB").getcolors(2**24)) > 10


def test_the_course_without_non_target_images(tmp_path: Path) -> None:
    logging = {"relation/target": [0.5], "relation/general_rank": [1.0], "relation/weight": [0.1]}
    picture = draw_relation_course(logging, tmp_path)
    assert picture.alt == "d(R_G(target), R_T(target)) goes from 0.5 to 0.5; rank goes from 1 to 1"
