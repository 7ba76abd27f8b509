import pickle

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy_maml import CT, maml_dataset, maml_plans, write_volume

from nnunet_ext.inference.modalities import CaseFiles
from nnunet_ext.inference.present_channels import PRESENT, PresentChannelsPlans


@pytest.fixture
def volumes(tmp_path):
    """Files of channels 0 to 2, and what is in them."""
    files = [str(tmp_path / f"a_{channel:04d}.nii.gz") for channel in range(3)]
    return files, [write_volume(file, seed) for seed, file in enumerate(files)]


def preprocess(case, plans_class=PresentChannelsPlans):
    plans = pickle.loads(pickle.dumps(plans_class(maml_plans())))
    configuration = plans.get_configuration("3d_fullres")
    data, _, properties = DefaultPreprocessor(verbose=False).run_case(case, None, plans, configuration, maml_dataset())
    return data, properties


def z_score(volume):
    return (volume - volume.mean()) / volume.std()


def test_complete_cases_are_those_of_the_host(volumes):
    files, _ = volumes
    ours, properties = preprocess(CaseFiles(tuple(files), (0, 1, 2), (0, 1, 2), 3))
    host, host_properties = preprocess(files, PlansManager)
    assert np.array_equal(ours, host)
    assert properties.pop(PRESENT) == [0, 1, 2]
    assert properties == host_properties


def test_each_channel_keeps_its_place_and_normalisation(volumes):
    files, (first, _, third) = volumes
    data, properties = preprocess(CaseFiles((files[2],), (2,), (2,), 3))
    assert properties[PRESENT] == [2]
    assert np.allclose(data[2], z_score(third), atol=1e-5)
    data, _ = preprocess(CaseFiles((files[0], files[2]), (0, 2), (0, 2), 3))
    as_ct = (first.clip(CT["percentile_00_5"], CT["percentile_99_5"]) - CT["mean"]) / CT["std"]
    assert np.allclose(data[0], as_ct, atol=1e-5)
    assert np.allclose(data[2], z_score(third), atol=1e-5)


def test_one_file_of_all_channels(volumes, tmp_path):
    files, arrays = volumes
    stacked = sitk.JoinSeries([sitk.GetImageFromArray(array) for array in arrays])
    sitk.WriteImage(stacked, str(tmp_path / "all_0000.nii.gz"))
    whole = (str(tmp_path / "all_0000.nii.gz"),)
    data, _ = preprocess(CaseFiles(whole, (0, 1, 2), (0, 1, 2), 3))
    assert np.array_equal(data, preprocess(CaseFiles(tuple(files), (0, 1, 2), (0, 1, 2), 3))[0])
    data, properties = preprocess(CaseFiles(whole, (1,), (1,), 3))
    assert np.array_equal(data, preprocess(CaseFiles((files[1],), (1,), (1,), 3))[0])
    assert properties[PRESENT] == [1]


def test_files_that_do_not_fit_are_named(volumes, tmp_path):
    files, _ = volumes
    write_volume(files[1], 0, shape=(20, 18, 23))
    with pytest.raises(RuntimeError, match=r"a_0000\.nii\.gz, a_0001\.nii\.gz: sizes or spacings differ"):
        preprocess(CaseFiles(tuple(files[:2]), (0, 1), (0, 1), 3))
    with pytest.raises(RuntimeError, match=r"a_0000\.nii\.gz: 1 channels where 2 are expected"):
        preprocess(CaseFiles((files[0],), (0, 1), (0, 1), 3))
