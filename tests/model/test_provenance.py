import json

import numpy as np
import pytest

from scfusionttt.errors import ModelFolderError
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.provenance import Provenance, checksums


def test_a_saved_model_knows_the_cells_that_taught_it_and_no_others(trained, cells, tmp_path):
    trained.finetuned.save(tmp_path / "m")
    learned = FusionTTT.load(tmp_path / "m").provenance.learned(cells.obs_names)
    held_out = trained.finetuned.metrics["finetune"]["n_cells"]
    assert (~learned).sum() == held_out
    assert not trained.finetuned.provenance.learned(["another cell"]).any()
    assert not trained.pretrained.provenance.learned(cells.obs_names).any(), "pretraining sees no label"


def test_a_student_remembers_the_cells_of_both_stages(trained, cells, rna_cells):
    assert trained.student.provenance.learned(cells.obs_names).sum() > 100
    assert 0 < trained.student.provenance.learned(rna_cells.obs_names).sum() < 45
    assert not trained.zero_shot.provenance.learned(rna_cells.obs_names).any()


def test_an_older_model_says_that_it_does_not_know(trained, tmp_path):
    trained.finetuned.save(tmp_path / "m")
    path = tmp_path / "m" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["taught"], manifest["commands"]
    path.write_text(json.dumps(manifest))
    provenance = FusionTTT.load(tmp_path / "m").provenance
    assert provenance.learned(["a"]) is None
    assert provenance.with_cells(["a"]).learned(["a"]) is None
    assert provenance.commands == ()
    path.write_text(json.dumps(manifest | {"taught": "?"}))
    with pytest.raises(ModelFolderError, match="do not fit together"):
        FusionTTT.load(tmp_path / "m")


def test_names_that_no_file_can_hold_have_a_checksum_too():
    assert checksums(["a", "\ud800", 3]).dtype == np.uint32
    provenance = Provenance.untrained().with_cells(["\ud800"])
    assert provenance.learned(["\ud800", "b"]).tolist() == [True, False]
