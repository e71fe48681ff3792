"""Files of a user, and commands on them."""

import pytest

from scfusionttt.io.quiet_warnings import quiet

SMALL = "--preset fast --set network.width=16 --set network.encoder_blocks=1 --set network.latent=8"


@pytest.fixture
def here(tmp_path, monkeypatch, cells, rna_cells, trained):
    """A folder with the files of a user, who stands in it."""
    with quiet():
        cells.write_h5mu(tmp_path / "cells.h5mu")
    rna_cells.write_h5ad(tmp_path / "rna.h5ad")
    trained.pretrained.save(tmp_path / "pretrained")
    trained.finetuned.save(tmp_path / "typed")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(result):
    """Return the result of a command that must have worked, without a word of Python's."""
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert "Warning" not in result.err
    return result
