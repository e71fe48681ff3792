"""The README's commands and Python lines run as written, on simulated cells under the names it uses."""

import re
from pathlib import Path

import numpy as np
import pytest

from scfusionttt import config
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model import reference
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
FENCED_OR_TABLED = re.compile(r"^```bash\n.*?^```|^\|.*?$", re.M | re.S)


@pytest.fixture
def tiny_default(monkeypatch):
    """Make the default preset a small one, since training it takes long."""
    tiny = config.preset("fast").with_settings({"data.n_genes": 300, "network.encoder_blocks": 1, "pretrain.epochs": 1})
    monkeypatch.setitem(config.PRESETS, "default", tiny)


def commands():
    """Return the commands of fenced blocks and tables, in their order."""
    parts = FENCED_OR_TABLED.findall(README.read_text(encoding="utf-8"))
    return [found.strip() for part in parts for found in re.findall(r"scfusionttt ([a-z][^#`\n]+)", part)]


@pytest.mark.filterwarnings("default")  # as in a script
def test_the_python_lines_of_the_readme_run_on_ten_thousand_cells(tmp_path, monkeypatch, tiny_default):
    """With pynndescent 0.7.0, scanpy's neighbors failed on more than 8,192 cells."""
    monkeypatch.chdir(tmp_path)
    with quiet():
        simulate(10_000, 300, 10, 3).write_h5mu("pbmc.h5mu")
    embedding, stages = PYTHON.findall(README.read_text(encoding="utf-8"))
    names = {}
    exec(embedding, names)
    assert names["mdata"].n_obs == 10_000
    assert names["mdata"].obs["leiden"].nunique() >= 3
    names["adata"] = names["mdata"]["rna"][:400].copy()
    exec(stages, names)
    assert len(names["types"]) == len(names["proteins"].mean) == 400


def test_the_commands_of_the_readme_run_as_written(tmp_path, monkeypatch, scfusionttt, tiny_default):
    monkeypatch.chdir(tmp_path)
    mdata = simulate(240, 300, 10, 3)
    mdata.obs["donor"] = np.repeat(["d1", "d2"], 120)
    with quiet():
        of_donors = {"donor1": mdata[:120], "donor2": mdata[120:], "donor3": mdata[::3]}
        for name, cells in {"pbmc": mdata, "cohort": mdata, **of_donors}.items():
            cells.copy().write_h5mu(f"{name}.h5mu")
        mdata["rna"].write_h5ad("rna.h5ad")
    about = reference.About(title="Toy", data="simulated", licence="cc0-1.0", tissue="blood")
    model = FusionTTT(progress=False).pretrain(mdata).finetune(mdata, labels_key="cell_type")
    (tmp_path / "references").mkdir()
    reference.write(model, tmp_path / "references" / "pbmc", about, {}, command="test")
    monkeypatch.setattr(reference, "SHIPPED", tmp_path / "references")  # the package's has other genes
    lines = commands()
    assert len(lines) >= 18
    for line in lines:
        result = scfusionttt(line)
        assert result.code == 0, f"scfusionttt {line}\n{result.out}{result.err}"
