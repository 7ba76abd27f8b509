"""CTs of the liver in arterial and venous phase, in the layout below: for data like those of the MAML paper."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nnunet_ext.dataset_conversion.base import Case, Conversion, needed_folder, reference, unique_by_name
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.datasets import RELATIONS_KEY
from nnunet_ext.utilities.errors import UsageError

HELP = "registered liver CTs in two phases with tumour masks, your own (layout of the MAML paper's private data)"
NAME = "LiverPhases"
OPTIONS: tuple[str, ...] = ()

PHASES = ("AP", "VP")
FILES = (*(f"{phase}.nii.gz" for phase in PHASES), "label.nii.gz")
LABELS = {"background": 0, "tumour": 1}


def plan(source: Path) -> Conversion:
    """The two phases and the label map of every patient folder; a case whose phases differ in their grids is bad.

    Both channels are called "CT", by which nnU-Net chooses its CT normalisation for each; which is which,
    ``modality_names`` in dataset.json says.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct

    needed_folder(source, f"P001/{', P001/'.join(FILES)} and so on")
    folders = sorted({f.parent for name in FILES for f in source.glob(f"[!.]*/{name}")})
    if not folders:
        raise UsageError(f"{source} holds no PATIENT/{FILES[0]}; expected P001/{', P001/'.join(FILES)} and so on")
    return Conversion(
        converter="liver_phases",
        source=source,
        cases=unique_by_name([_case(folder) for folder in folders]),
        dataset_json={
            "channel_names": {str(index): "CT" for index in range(len(PHASES))},
            "labels": LABELS,
            RELATIONS_KEY: {"modality_names": list(PHASES)},
        }
        | reference("Liver CTs in arterial (AP) and venous phase (VP)", "", "that of the source"),
        process=partial(process_ct, num_labels=len(LABELS)),
        finish=finish_ct,
        folds=patient_folds,
    )


def _case(folder: Path) -> Case:
    image, *channels, label = (folder / name for name in FILES)
    missing = [f"no {file.name}" for file in (image, *channels, label) if not file.is_file()]
    problem = " and ".join(missing) or None
    return Case(folder.name, folder.name, "train", image, label, problem=problem, channels=tuple(channels))
