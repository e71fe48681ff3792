"""What a bad call gets: one line naming cause and remedy, exit code 2. Bad input is in `tests/contract`."""

import json
import shutil
import sys

import numpy as np
import pytest
from mudata import MuData
from scipy import sparse

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.folder import FORMAT_VERSION
from support import run_python

FAST = "--preset fast --epochs 1 --set network.width=16"


@pytest.fixture(scope="module")
def place(tmp_path_factory, cells, rna_cells, trained):
    """A folder of good and bad files, and of earlier results: ``model``, ``z.npy`` and ``t.csv``."""
    place = tmp_path_factory.mktemp("bad")

    def write(name, change=lambda data: None, data=cells):
        with quiet():
            data = data.copy()
            data = change(data) or data
            data.write_h5mu(place / f"{name}.h5mu") if isinstance(data, MuData) else data.write_h5ad(
                place / f"{name}.h5ad"
            )

    write("good")
    write("rna", data=rna_cells)
    write("few_genes", lambda data: data[:, ::3].copy(), data=rna_cells)
    (place / "text.h5mu").write_text("cell,gene\n")
    (place / "folder").mkdir()
    (place / "folder" / "thesis.tex").write_text("years of work")

    trained.pretrained.save(place / "model")
    trained.finetuned.save(place / "typed")
    shutil.copytree(place / "model", place / "newer")
    manifest = json.loads((place / "model" / "manifest.json").read_text())
    (place / "newer" / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    shutil.copytree(place / "model", place / "incomplete")
    (place / "incomplete" / "weights.safetensors").unlink()
    (place / "z.npy").write_text("an earlier result")
    (place / "t.csv").write_text("an earlier result")
    return place


@pytest.fixture
def refused(place, scfusionttt, monkeypatch):
    """Run a command that must fail, and return its one line."""
    monkeypatch.chdir(place)

    def everything():
        return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    def run(command):
        before = everything()
        result = scfusionttt(command)
        assert result.code == 2
        *notes, error = result.err.splitlines()
        assert error.startswith("scfusionttt: ")
        assert not any(note.startswith(("scfusionttt:", "Traceback")) for note in notes)
        assert result.out == "" or command.startswith("validate")
        assert everything() == before, "what was there is untouched, and nothing was added"
        return error

    return run


BAD_CALLS = {
    "labels: in transfer": ("transfer rna.h5ad --model typed --labels celltype --out new", "no obs['celltype']"),
    "genes: too few": (
        "embed few_genes.h5ad --model model --out z.npy",
        "only 100 of the model's 300 genes are in the input",
    ),
    "genes: no such species": (
        f"pretrain good.h5mu --out new --species yeast {FAST}",
        "species 'yeast' has no gene table; use human or mouse",
    ),
    "model: missing": ("embed good.h5mu --model nowhere --out z.npy", "no such model folder; use one"),
    "model: newer": (
        "embed good.h5mu --model newer --out z.npy",
        f"has format 99, newer than {FORMAT_VERSION}, the newest supported; update scfusionttt",
    ),
    "model: incomplete": (
        "embed good.h5mu --model incomplete --out z.npy",
        "weights.safetensors is missing; copy the whole model folder",
    ),
    "model: knows no classes": ("predict good.h5mu --model model --out t.csv", "has no classes; run finetune first"),
    "model: no zero-shot": ("transfer rna.h5ad --model model --out new", "run finetune first"),
    "call: unknown verb": ("frobnicate", "No such command 'frobnicate'; see scfusionttt --help"),
    "call: unknown option": ("embed good.h5mu --colour red", "No such option: --colour"),
    "call: option missing": ("embed good.h5mu --model model", "Missing option '--out'; see scfusionttt embed --help"),
    "call: no number": ("pretrain good.h5mu --out new --epochs many", "Invalid value for '--epochs'"),
    "call: no such device": ("pretrain good.h5mu --out new --device abacus", "Invalid value for '--device'"),
    "setting: no such preset": (
        "pretrain good.h5mu --out new --preset slow",
        "no preset 'slow'; choose one of default, paper, scmmae, whole, fast",
    ),
    "setting: no such key": (
        "pretrain good.h5mu --out new --set network.widht=3",
        "no setting 'network.widht'; did you mean",
    ),
    "setting: no value": ("pretrain good.h5mu --out new --set network.width", "write --set section.key=value"),
    "setting: bad value": (
        "pretrain good.h5mu --out new --set network.width=wide",
        "network.width must be of type int, not 'wide'",
    ),
    "setting: no epochs": ("pretrain good.h5mu --out new --epochs 0", "pretrain.epochs must be at least 1"),
    "setting: no such file": ("pretrain good.h5mu --out new --config mine.toml", "mine.toml: cannot be read"),
    "setting: no memory": ("pretrain good.h5mu --out new --memory lots", "memory must be a size like 6GiB, 4GB"),
    "setting: too little memory": (
        "finetune good.h5mu --model model --labels cell_type --out new --memory 10MB "
        "--set finetune.classifier=finetune",
        "may use 0.01 GiB; increase memory, or pretrain with network.checkpoint_blocks=true",
    ),
    "setting: not TOML": ("pretrain good.h5mu --out new --config text.h5mu", "is not TOML"),
    "setting: fixed by pretraining": (
        "finetune good.h5mu --model model --labels cell_type --out new --set network.width=32",
        "give them to pretrain",
    ),
    "setting: of pretraining": (
        "finetune good.h5mu --model model --labels cell_type --out new --set pretrain.lr=0.1",
        "give them to pretrain",
    ),
    "setting: without effect": (
        "finetune good.h5mu --model model --labels cell_type --out new --set finetune.lr=0.1",
        "finetune.lr=0.1 has no effect without finetune.classifier=finetune",
    ),
    "setting: in a zero-shot transfer": (
        "transfer rna.h5ad --model typed --out new --set finetune.classifier=linear",
        "--set has no effect without --labels-key",
    ),
    "setting: of proteins in transfer": (
        "transfer rna.h5ad --model typed --labels cell_type --out new --set finetune.hide_protein=0.3",
        "finetune.hide_protein has no effect in scfusionttt transfer",
    ),
    "setting: fraction above 1": (
        "finetune good.h5mu --model model --labels cell_type --out new --train-fraction 1.5",
        "must be between 0 and 1 (got 1.5)",
    ),
    "setting: fraction 0": (
        "finetune good.h5mu --model model --labels cell_type --out new --train-fraction 0",
        "must be between 0 and 1 (got 0.0)",
    ),
    "setting: fraction in transfer": (
        "transfer rna.h5ad --model typed --labels cell_type --out new --train-fraction -1",
        "must be between 0 and 1 (got -1.0)",
    ),
    "setting: fraction of no labels": (
        "transfer rna.h5ad --model typed --out new --train-fraction 0.3",
        "--train-fraction 0.3 needs --labels-key; leave it out for zero-shot transfer",
    ),
    "input: no such modality": (
        "embed good.h5mu --model model --out z.npy --rna-modality atac",
        "there is no modality 'atac'; the input has rna, prot",
    ),
    "input: no such layer": ("embed good.h5mu --model model --out z.npy --layer raw", "RNA has no layer 'raw'"),
    "output: folder missing": (
        "embed good.h5mu --model model --out no/z.npy",
        "does not exist; create it or choose another",
    ),
    "output: folder of a model missing": (
        "pretrain good.h5mu --out no/model",
        "does not exist; create it or choose another",
    ),
    "output: unknown ending": (
        "embed good.h5mu --model model --out z.txt",
        "the ending '.txt' is not supported; use .npy",
    ),
    "output: unknown ending of a table": (
        "predict good.h5mu --model typed --out t.xlsx",
        "the ending '.xlsx' is not supported; use .csv",
    ),
    "output: the report over the data": (
        "report good.h5mu --model typed --out good.h5mu",
        "good.h5mu: the ending '.h5mu' is not supported; use .html",
    ),
    "output: the scores over the data": (
        "validate good.h5mu --json good.h5mu",
        "good.h5mu: the ending '.h5mu' is not supported; use .json",
    ),
    "output: the model to start from": (
        "finetune good.h5mu --model model --labels cell_type --out ./model",
        "model is the model to start from; choose another name for --out",
    ),
    "output: an earlier model": (
        "pretrain good.h5mu --out typed",
        "typed is a model already; choose another name, or pass --overwrite to replace it",
    ),
    "output: scores in a model's folder": (
        "validate good.h5mu --json model/manifest.json",
        "model is a model folder; write to another folder",
    ),
    "output: no folder for the scores, reported before training": (
        "finetune good.h5mu --model model --labels cell_type --out new --json no/scores.json",
        "does not exist; create it or choose another",
    ),
    "output: h5mu of one AnnData": ("embed rna.h5ad --model model --out z.h5mu", "use .h5ad or .zarr"),
    "output: a file in place of the folder of results": (
        "benchmark good.h5mu --labels-key cell_type --out t.csv/results",
        "cannot be created, as ",
    ),
    "output: a name that is too long": (
        f"pretrain good.h5mu --out {'m' * 250}",
        "File name too long; choose another name",
    ),
    "output: somebody's folder": ("pretrain good.h5mu --out folder", "other content and is not overwritten"),
    "output: a file for a folder": (
        "pretrain good.h5mu --out t.csv",
        "is a file and is not overwritten; choose another name",
    ),
    "benchmark: a map of labels in another task": (
        "benchmark good.h5mu --labels-key cell_type --label-map t.csv --out new",
        "--label-map has no effect with --task embed; leave it out",
    ),
    "benchmark: fractions in another task": (
        "benchmark good.h5mu --task impute --batch-key donor --train-fractions 0.3 --out new",
        "--train-fractions has no effect with --task impute; leave it out",
    ),
    "benchmark: labels in a task without": (
        "benchmark good.h5mu --task impute --batch-key donor --labels-key cell_type --out new",
        "--labels-key has no effect with --task impute; leave it out",
    ),
    "benchmark: fraction above 1": (
        "benchmark good.h5mu rna.h5ad --task transfer --labels-key cell_type --train-fractions 0.3,2 --out new",
        "--train-fractions must be between 0 and 1, like 0.75,0.05 (got '0.3,2')",
    ),
    "evaluate: no such representation": (
        "evaluate good.h5mu --labels cell_type --rep X_pca",
        "no obsm['X_pca'] (existing: none); write one with `scfusionttt embed`",
    ),
    "evaluate: not embedded yet": ("evaluate rna.h5ad --labels cell_type", "no obsm['X_fusionttt']"),
    "evaluate: no such labels": ("evaluate rna.h5ad --labels kind", "no obs['kind']; the columns are: cell_type"),
    "evaluate: no such clusters": ("evaluate rna.h5ad --labels cell_type --clusters leiden", "no obs['leiden']"),
    "evaluate: space of clusters": (
        "evaluate rna.h5ad --labels cell_type --clusters cell_type --space umap",
        "applies to a representation, not to clusters",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call(name, refused):
    command, message = BAD_CALLS[name]
    assert message in refused(command)


def test_a_device_that_is_not_there_is_told_before_the_input_is_read(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    message = refused("pretrain missing.h5mu --out new --device cuda")
    assert "the device 'cuda' is not available on this machine; choose auto or cpu" in message


NO_DEVICE = "cuda" if sys.platform == "darwin" else "mps"
TYPED = "good.h5mu --model typed --labels-key cell_type --out new"
WITHOUT_TORCH = [
    *(f"{verb} missing.h5mu --model typed --out z.csv" for verb in ("embed", "predict", "impute")),
    "explain missing.h5mu --model typed --target CD3 --out t.csv",
    "report missing.h5mu --model typed --out r.html",
    "pretrain missing.h5mu --out new",
    "finetune missing.h5mu --model typed --labels-key cell_type --out new",
    "transfer missing.h5mu --model typed --out new",
    "plan missing.h5mu",
    "benchmark missing.h5mu --labels-key cell_type",
    "benchmark good.h5mu --labels-key cell_type --out t.csv",
    "ablate order good.h5mu --labels-key cell_type --preset slow",
    "pretrain good.h5mu --out new --preset slow",
    "pretrain good.h5mu --out new --set network.widht=3",
    "pretrain good.h5mu --out new --memory lots",
    f"pretrain good.h5mu --out new --device {NO_DEVICE}",
    "pretrain good.h5mu --out new --device gpu",
    "pretrain good.h5mu --out typed",
    "pretrain good.h5mu --out no/new",
    "embed good.h5mu --model nowhere --out z.csv",
    "embed good.h5mu --model incomplete --out z.csv",
    "embed good.h5mu --model typed --out z.txt",
    f"finetune {TYPED} --set network.width=32",
    f"finetune {TYPED} --set finetune.hide_protein=often",
    f"transfer {TYPED} --set finetune.hide_protein=0.3",
]


def test_what_can_be_checked_without_torch_is_refused_before_it_is_loaded(place):
    """12 s of loading passed before a misspelt path was refused."""
    code = (
        "import contextlib, io, shlex, sys; from scfusionttt.cli import main\n"
        f"for command in {WITHOUT_TORCH!r}:\n"
        "    sys.argv, err = ['scfusionttt', *shlex.split(command)], io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stderr(err): main()\n"
        "    except SystemExit as end:\n"
        "        heavy = sorted({'torch', 'lightning'} & set(sys.modules))\n"
        "        print(end.code, heavy, 'Value error' in err.getvalue(), command, err.getvalue(), sep=' | ', end='')\n"
        "        if heavy: break\n"
    )
    lines = run_python(code, cwd=place).splitlines()
    assert len(lines) == len(WITHOUT_TORCH), lines
    assert [line for line in lines if not line.startswith("2 | [] | False | ")] == []


def test_empty_genes_are_named_in_a_warning(place, scfusionttt, monkeypatch, tmp_path, rna_cells):
    without = rna_cells.copy()
    without.X = sparse.csr_matrix(without.X.toarray() * (np.arange(without.n_vars) > 0))
    without.write_h5ad(tmp_path / "gap.h5ad")
    monkeypatch.chdir(tmp_path)
    result = scfusionttt(f"pretrain gap.h5ad --out {tmp_path}/new {FAST}")
    assert result.code == 0, result.err
    assert "no counts in any cell for" in result.err and str(without.var_names[0]) in result.err
