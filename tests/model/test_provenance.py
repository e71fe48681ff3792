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


def test_barcodes_that_two_runs_share_by_chance_are_no_cells_that_taught():
    """Another data set was called fine-tuned on since 7 of its 2,100 barcodes occurred in the first."""
    provenance = Provenance.untrained().with_cells(f"cell-{n}" for n in range(1000))
    other = [*(f"cell-{n}" for n in range(5)), *(f"other-{n}" for n in range(500))]
    assert not provenance.learned(other).any()
    assert provenance.learned(other[:100]).sum() == 5, "a twentieth is not chance"
    assert provenance.learned([f"cell-{n}" for n in range(0, 100_000, 2)]).sum() == 500, "half of those that taught"


def test_cells_of_a_store_are_known_by_their_own_names():
    """A store names them by their files if two files share a barcode."""
    provenance = Provenance.untrained().with_cells(["a.h5ad:AAAC-1", "b.h5ad:AAAC-1", "b.h5ad:TTTG-1"])
    assert provenance.learned(["TTTG-1", "a.h5ad:AAAC-1", "CCCA-1"]).tolist() == [True, True, False]
    assert provenance.learned(["other.h5ad:TTTG-1"]).all()


def test_names_that_no_file_can_hold_have_a_checksum_too():
    assert checksums(["a", "\ud800", 3]).dtype == np.uint32
    provenance = Provenance.untrained().with_cells(["\ud800"])
    assert provenance.learned(["\ud800", "b"]).tolist() == [True, False]
