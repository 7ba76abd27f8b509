"""The sentence that each image is predicted with."""

import json

import pytest
import torch

from nnunet_ext.data.tokenizer import build_vocabulary
from nnunet_ext.inference.prompts import encoded_prompts, selected_prompt
from nnunet_ext.settings.tmc import TMCSettings
from nnunet_ext.utilities.errors import UsageError


def plans(**settings):
    made = TMCSettings(vocabulary=build_vocabulary(["A box on the left."]), **settings)
    return {"nnunet_ext": {"TMCTrainer": made.to_dict()}}


def test_every_case_has_a_row_and_what_is_odd_is_told(tmp_path):
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({"a": "A box on the left.", "b": "A Zebra, a box, a cow."}))
    rows, told = encoded_prompts("TMCTrainer", plans(default_prompt="A box."), ["a", "b", "c"], str(file), None)
    assert set(rows) == {"a", "b", "c"} and all(row.shape == (1, 32) for row in rows.values())
    assert told == (
        "2 cases with a sentence; 1 without, which get the default prompt: c;"
        " words that the model does not know: ,, cow, zebra"
    )
    default, _ = encoded_prompts("TMCTrainer", plans(), ["c"], None, "A box.")
    assert torch.equal(rows["c"], default["c"])


def test_too_long_a_sentence_is_refused():
    with pytest.raises(UsageError, match="1 of 1 sentences have more than token_length=32 tokens"):
        encoded_prompts("TMCTrainer", plans(), ["a"], None, "box " * 40)


def test_a_prompt_is_selected_for_its_case_alone():
    class Network:
        selected = None

        def select_prompts(self, rows):
            self.selected = rows

    network, row = Network(), torch.ones(1, 3)
    with selected_prompt(network, {"a": row}, "a"):
        assert network.selected is row
    assert network.selected is None
    with pytest.raises(RuntimeError), selected_prompt(network, {"a": row}, "a"):
        raise RuntimeError
    assert network.selected is None
    with selected_prompt(object(), {}, "a"):
        pass  # a network without text


def test_sentences_for_a_model_without_text_are_refused():
    plans = {"nnunet_ext": {"TMCTrainer": TMCSettings(no_text=True).to_dict()}}
    with pytest.raises(UsageError, match=r"--prompt: only a model of TMCTrainer reads sentences, .*no_text=true"):
        encoded_prompts("TMCTrainer", plans, ["a"], None, "A box.")
    with pytest.raises(UsageError, match="--prompts x.csv: only a model of TMCTrainer .* this one is of MAMLTrainer"):
        encoded_prompts("MAMLTrainer", {}, ["a"], "x.csv", None)
