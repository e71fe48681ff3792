"""The components for benchmarks and workflow managers run on small files in the shape that these pass to them."""

import re
import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from scipy.stats import pearsonr

import scfusionttt as package
from scfusionttt.model.reference import find
from scfusionttt.simulation.simulate import simulate

INTEGRATIONS = Path(__file__).parents[2] / "integrations"


@pytest.fixture(scope="module")
def cells():
    return simulate(240, 300, 6, 3)


def run(command, cwd):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("n_batches", [1, 2])
def test_multibench_gets_an_embedding(cells, tmp_path, n_batches):
    paths = {"rna": [], "prot": []}
    for number, rows in enumerate(np.array_split(np.arange(cells.n_obs), n_batches)):
        for name, files in paths.items():
            part = cells[name][rows]
            files.append(str(tmp_path / f"{name}{number}.h5"))
            with h5py.File(files[-1], "w") as file:
                counts = part.X.toarray() if hasattr(part.X, "toarray") else part.X
                file["matrix/data"] = counts.T
                file["matrix/features"] = part.var_names.to_numpy().astype("S")
                file["matrix/barcodes"] = part.obs_names.to_numpy().astype("S")
    script = INTEGRATIONS / "multibench" / "tools_scripts" / "scFusionTTT" / "main_scFusionTTT.py"
    inputs = ["--path1", *paths["rna"], "--path2", *paths["prot"]]
    run([sys.executable, str(script), *inputs, "--save_path", "out", "--preset", "fast"], tmp_path)
    with h5py.File(tmp_path / "out" / "embedding.h5") as file:
        embedding = file["data"][:]
    assert embedding.shape[0] == cells.n_obs
    assert np.isfinite(embedding).all()


@pytest.mark.slow
def test_open_problems_gets_proteins_in_the_normalisation_of_the_task(cells, tmp_path):
    def mod(name, rows):
        part = cells[name][rows].copy()
        counts = part.X.toarray() if hasattr(part.X, "toarray") else np.asarray(part.X)
        part.layers["counts"] = counts
        part.layers["normalized"] = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
        del part.X
        part.uns |= {"dataset_id": "toy", "normalization_id": "log_cp10k"}
        part.obs["batch"] = "a"
        return part

    train, test = slice(0, 160), slice(160, 240)
    mod("rna", train).write_h5ad(tmp_path / "train_mod1.h5ad")
    mod("prot", train).write_h5ad(tmp_path / "train_mod2.h5ad")
    mod("rna", test).write_h5ad(tmp_path / "test_mod1.h5ad")
    path = next((INTEGRATIONS / "openproblems").rglob("script.py"))
    script = path.read_text(encoding="utf-8").replace('"preset": "default"', '"preset": "fast"')
    run([sys.executable, "-c", script], tmp_path)

    prediction = anndata.read_h5ad(tmp_path / "output.h5ad")
    truth = mod("prot", test)
    assert prediction.uns["dataset_id"] == "toy"
    assert prediction.uns["method_id"] == "scfusionttt"
    assert prediction.obs_names.tolist() == truth.obs_names.tolist()
    assert prediction.var_names.tolist() == truth.var_names.tolist()
    pairs = zip(prediction.layers["normalized"].T, truth.layers["normalized"].T, strict=True)
    # Six proteins in proportion to each other, from 160 simulated cells: little can be learned, but something.
    assert np.mean([pearsonr(*pair).statistic for pair in pairs]) > 0.2


def rendered(block, values):
    """Return the script of a Nextflow process with its Groovy variables filled in."""
    main = (INTEGRATIONS / "nf-core" / "modules" / "scfusionttt" / "annotate" / "main.nf").read_text(encoding="utf-8")
    script = re.search(rf'    {block}:\n.*?"""\n(.*?)"""', main, re.S)[1].replace("\\\\\n", "\\\n")
    return re.sub(r"\$\{?([\w.]+)\}?", lambda name: values[name[1]], script)


@pytest.mark.skipif(sys.platform == "win32", reason="Nextflow needs a POSIX shell")
def test_the_stub_of_the_nextflow_module_writes_what_the_module_promises(tmp_path):
    run(["bash", "-c", rendered("stub", {"prefix": "a_annotated"})], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a_annotated.h5ad"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Nextflow needs a POSIX shell")
def test_the_script_of_the_nextflow_module_annotates(tmp_path):
    genes = package.FusionTTT.load(find("pbmc")).features.genes["name"].tolist()
    rna = simulate(60, len(genes), 14, 3)["rna"].copy()
    rna.var_names = genes
    del rna.var["gene_ids"]
    rna.write_h5ad(tmp_path / "rna.h5ad")
    values = {"task.cpus": "1", "args": "", "counts": "rna.h5ad", "prefix": "a"}
    script = f'scfusionttt() {{ "{sys.executable}" -m scfusionttt "$@"; }}\n' + rendered("script", values)
    run(["bash", "-euo", "pipefail", "-c", script], tmp_path)
    assert "fusionttt_label" in anndata.read_h5ad(tmp_path / "a.h5ad").obs
