import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.nsclc_pleural_effusion import plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError

NAME = "Dataset078_NSCLCPleuralEffusion"


@pytest.fixture
def sample(tmp_path, write_nifti, ct):
    """CTs of four patients, three of them with effusions, whose masks have two axes the other way round."""
    source = tmp_path / "NSCLC"
    for number in (1, 5, 13, 420):
        name = f"LUNG1-{number:03d}"
        values, label = ct(number)
        write_nifti(source / "CT" / f"{name}.nii.gz", values)
        write_nifti(source / "Thoracic_Cavities" / name / f"{name}_thor_cav_primary_reviewer.nii.gz", label)
        if number != 13:
            for reviewer, mask in (("first", label), ("second", np.zeros_like(label))):
                path = source / "Effusions" / name / f"{name}_effusion_{reviewer}_reviewer.nii.gz"
                header = {"origin": (1.0, 3.25, 18.0), "direction": (1, 0, 0, 0, -1, 0, 0, 0, -1)}
                write_nifti(path, mask[::-1, ::-1], **header)
    return source


def test_masks_of_the_first_reviewer_on_the_grid_of_the_ct(raw, sample, ct):
    manifest = convert(plan(sample), NAME, processes=1, quiet=True).manifest
    assert list(manifest["cases"]) == ["LUNG1-001", "LUNG1-005", "LUNG1-420"]
    assert manifest["cases"]["LUNG1-005"]["label_reoriented"] == "LAI to LPS"
    label = SimpleITK.ReadImage(str(raw / NAME / "labelsTr" / "LUNG1-005.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), ct(5)[1])
    assert label.GetOrigin() == (1.0, -2.0, 3.0)


def test_mask_without_ct_and_patient_without_first_reviewer(sample):
    (sample / "CT" / "LUNG1-001.nii.gz").unlink()
    (sample / "Effusions" / "LUNG1-005" / "LUNG1-005_effusion_first_reviewer.nii.gz").unlink()
    assert {case.name: case.problem for case in plan(sample).cases if case.problem} == {
        "LUNG1-001": "no CT that is called like the patient, such as LUNG1-001.nii.gz",
        "LUNG1-005": "no mask of the first reviewer",
    }


def test_wrong_layout(sample, tmp_path, write_nifti, ct):
    with pytest.raises(UsageError, match=r"holds no \*_effusion_first_reviewer.nii.gz"):
        plan(sample / "CT")
    with pytest.raises(UsageError, match="does not exist"):
        plan(tmp_path / "nowhere")
    write_nifti(sample / "more" / "LUNG1-001_0000.nii.gz", ct(0)[0])
    with pytest.raises(UsageError, match="both named as the CT of LUNG1-001"):
        plan(sample)
