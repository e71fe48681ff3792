"""The README's commands, run one after the other as they stand there, on simulated cells under the names it uses."""

import re
from pathlib import Path

import pytest

from scfusionttt import config
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
FENCED_OR_TABLED = re.compile(r"^```bash\n.*?^```|^\|.*?$", re.M | re.S)


def commands():
    """Return the commands of fenced blocks and tables, in their order."""
    parts = FENCED_OR_TABLED.findall(README.read_text(encoding="utf-8"))
    return [found.strip() for part in parts for found in re.findall(r"scfusionttt ([a-z][^#`\n]+)", part)]


def test_the_commands_of_the_readme_run_as_they_stand(tmp_path, monkeypatch, scfusionttt):
    tiny = config.preset("fast").with_settings({"data.n_genes": 300, "network.encoder_blocks": 1, "pretrain.epochs": 1})
    monkeypatch.setitem(config.PRESETS, "default", tiny)  # the commands take the default, which takes its time
    monkeypatch.chdir(tmp_path)
    mdata = simulate(240, 300, 10, 3)
    with quiet():
        for name, cells in {"pbmc": mdata, "donor1": mdata[:120], "donor2": mdata[120:]}.items():
            cells.copy().write_h5mu(f"{name}.h5mu")
        mdata["rna"].write_h5ad("rna.h5ad")
    lines = commands()
    assert len(lines) >= 18
    for line in lines:
        result = scfusionttt(line)
        assert result.code == 0, f"scfusionttt {line}\n{result.out}{result.err}"
