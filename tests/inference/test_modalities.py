import re

import numpy as np
import pytest
from toy_maml import NAMES, maml_dataset, maml_plans, write_volume

from nnunet_ext.inference.modalities import (
    CaseFiles,
    choose_files,
    choose_modalities,
    incomplete_cases,
    modalities_of,
    numbered_channels,
    selected_modalities,
)
from nnunet_ext.utilities.errors import UsageError

ONE_EACH = {"T1": (0,), "T1ce": (1,), "FLAIR": (2,)}
GROUPS = {"perfusion": (0, 2), "FLAIR": (1,)}


def no_reading(_files):
    raise AssertionError("files of one channel need not be read")


def choose(case, modalities=ONE_EACH, chosen=None, read_images=no_reading):
    """What is read of case ``a`` with these channels; their files need not exist."""
    files = {channel: f"in/a_{channel:04d}.nii.gz" for channel in case}
    chosen = range(len(modalities)) if chosen is None else chosen
    return choose_files([files], modalities, chosen, ".nii.gz", read_images)[0]


class Network:
    def __init__(self):
        self.selections = []

    def select_modalities(self, indices):
        self.selections.append(indices)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("T1ce,FLAIR", (1, 2)), ("flair, t1CE", (1, 2)), ("2,0", (0, 2)), ("1", (1,)), ("T1,0,T1", (0,))],
)
def test_modalities_are_named_or_numbered(text, expected):
    assert choose_modalities(text, ONE_EACH) == expected


def test_a_name_goes_before_a_number_and_an_exact_name_before_another_case():
    assert choose_modalities("1", {"2": (0,), "1": (1,), "0": (2,)}) == (1,)
    assert choose_modalities("t1", {"T1": (0,), "t1": (1,)}) == (1,)


@pytest.mark.parametrize("text", ["T5", "3", "-1", "", "T1,", "T1+FLAIR"])
def test_unknown_modalities_are_refused_with_the_known_ones(text):
    with pytest.raises(UsageError, match=re.escape("it has T1 (0), T1ce (1), FLAIR (2)")):
        choose_modalities(text, ONE_EACH)


def test_channels_come_from_the_names_of_the_files():
    assert numbered_channels(["x/a_0002.nii.gz", "x/a_0000.nii.gz"], ".nii.gz") == {
        2: "x/a_0002.nii.gz",
        0: "x/a_0000.nii.gz",
    }


def test_what_is_there_is_read():
    assert choose((0, 1, 2)) == CaseFiles(
        ("in/a_0000.nii.gz", "in/a_0001.nii.gz", "in/a_0002.nii.gz"), (0, 1, 2), (0, 1, 2), 3
    )
    assert choose((2,)) == CaseFiles(("in/a_0002.nii.gz",), (2,), (2,), 3)


def test_only_chosen_modalities_are_read():
    assert choose((0, 1, 2), chosen=(1, 2)).files == ("in/a_0001.nii.gz", "in/a_0002.nii.gz")
    assert choose((0, 1), chosen=(1, 2)) == choose((1,))


def test_groups_are_there_as_a_whole():
    assert choose((0, 2), GROUPS) == CaseFiles(("in/a_0000.nii.gz", "in/a_0002.nii.gz"), (0, 2), (0,), 3)
    assert choose((1,), GROUPS).modalities == (1,)
    with pytest.raises(UsageError, match="case a has only a part of perfusion: give channel 0002 too"):
        choose((0, 1), GROUPS)
    assert choose((0, 1), GROUPS, chosen=(1,)).files == ("in/a_0001.nii.gz",)  # what is not used may be incomplete


def test_every_unfit_case_is_named():
    cases = [{7: "in/b_0007.nii.gz", 0: "in/b_0000.nii.gz"}, {1: "in/c_0001.nii.gz"}, {2: "in/d_0002.nii.gz"}]
    with pytest.raises(UsageError) as error:
        choose_files(cases, ONE_EACH, (0, 1), ".nii.gz", no_reading)
    message = str(error.value)
    assert "case b has no channel for b_0007.nii.gz" in message
    assert "case d has none of T1, T1ce, only d_0002.nii.gz" in message
    assert "case c" not in message
    assert "modalities of this model: 0000 T1, 0001 T1ce, 0002 FLAIR" in message


def test_one_file_may_hold_all_channels(tmp_path):
    file = tmp_path / "a_0000.nii.gz"
    file.touch()
    read_images = lambda _: (np.zeros((3, 4, 4, 4)), {})  # noqa: E731
    whole = choose_files([{0: str(file)}], ONE_EACH, (0, 2), ".nii.gz", read_images)
    assert whole == [CaseFiles((str(file),), (0, 2), (0, 2), 3)]
    write_volume(file, 0)
    alone = choose_files([{0: str(file)}], ONE_EACH, (0, 2), ".nii.gz", no_reading)
    assert alone == [CaseFiles((str(file),), (0,), (0,), 3)]


def test_incomplete_cases_are_listed():
    cases = [choose((0, 2)), choose((0, 1, 2))]
    assert incomplete_cases(cases, ONE_EACH, (0, 1, 2), ".nii.gz") == "1 of 2 cases lack modalities: a (has T1, FLAIR)"
    assert incomplete_cases(cases[1:], ONE_EACH, (0, 1, 2), ".nii.gz") == ""
    asked_for = [choose((0, 1, 2), chosen=(1, 2))]
    assert incomplete_cases(asked_for, ONE_EACH, (1, 2), ".nii.gz") == ""
    assert incomplete_cases(cases[:1] * 25, ONE_EACH, (0, 1, 2), ".nii.gz").endswith("a (has T1, FLAIR) and 5 more")


def test_modalities_of_a_model():
    dataset_json = maml_dataset()
    assert modalities_of(Network(), maml_plans(), dataset_json) == {name: (i,) for i, name in enumerate(NAMES)}
    grouped = maml_plans(settings={"modalities": {"MR": [0, 1], "flair": [2]}})
    assert modalities_of(Network(), grouped, dataset_json) == {"MR": (0, 1), "flair": (2,)}
    assert modalities_of(object(), maml_plans(), dataset_json) == {}
    with pytest.raises(UsageError, match="at least two modalities"):
        modalities_of(Network(), maml_plans(1), maml_dataset(["CT"]))


def test_the_selection_ends_also_with_an_error():
    network = Network()
    with selected_modalities(network, [1]):
        assert network.selections == [[1]]
    assert network.selections == [[1], None]
    with pytest.raises(ZeroDivisionError), selected_modalities(network, [2]):
        raise ZeroDivisionError
    assert network.selections[2:] == [[2], None]
    with selected_modalities(object(), None):
        pass
