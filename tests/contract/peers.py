"""What totalVI and muon make of the catalogue's bad input, where scvi-tools and muon are installed.

``python tests/contract/peers.py && python tests/contract/bad_inputs.py`` writes `peers.tsv` and the page anew. Inputs
that are odd by an option of ours are left out. With names of inputs only their rows are made.
"""

import csv
import multiprocessing
import os
import resource
import sys
import tempfile
import traceback
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bad_inputs import CATALOGUE, PEERS
from making import rna_of, write

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate

CLEAR, SILENT, TOLD, DEEP, USED = "clear error", "silent wrong result", "warning", "crash deep inside", "used"
#: A message that comes from one of these was written for the user; from below them, for a programmer.
OF_THE_TOOL = ("scvi", "muon", "mudata", "anndata", "scanpy")
#: Bytes of memory and seconds that a case may take.
MOST_MEMORY, MOST_SECONDS = 12 << 30, 180
#: Two warnings that begin with so many equal characters are one.
SAME = 40


def open_as_users_do(path):
    """Read a file by the tools' own readers."""
    import anndata
    import muon

    if path.is_dir() and path.suffix != ".zarr":
        return muon.read_10x_mtx(path)
    if path.suffix == ".zarr":
        return anndata.read_zarr(path)
    return muon.read(path) if path.suffix in (".h5mu", ".h5ad") else muon.read_10x_h5(path)


def totalvi(path):
    """Train totalVI, or scVI where the file has RNA alone, for one epoch and return its representation."""
    from mudata import MuData
    from scvi.model import SCVI, TOTALVI

    data, method = open_as_users_do(path), TOTALVI
    if isinstance(data, MuData):
        TOTALVI.setup_mudata(data, modalities={"rna_layer": "rna", "protein_layer": "prot"})
    elif "protein_expression" in data.obsm:
        TOTALVI.setup_anndata(data, protein_expression_obsm_key="protein_expression")
    else:
        method = SCVI
        SCVI.setup_anndata(data)
    model = method(data)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model.get_latent_representation()


def muon(path):
    """Return muon's weighted nearest neighbours, or those of RNA alone, by the steps of its tutorial."""
    import muon as mu
    import scanpy as sc
    from mudata import MuData

    data = open_as_users_do(path)
    parts = [data["rna"], data["prot"]] if isinstance(data, MuData) else [data]
    sc.pp.normalize_total(parts[0])
    sc.pp.log1p(parts[0])
    if isinstance(data, MuData):
        mu.prot.pp.clr(parts[1])
    for part in parts:
        sc.pp.pca(part, n_comps=5)
        sc.pp.neighbors(part)
    if isinstance(data, MuData):
        mu.pp.neighbors(data, n_multineighbors=50)  # its default writes past its arrays on fewer than 200 cells
    return data.obsp["connectivities"].toarray()


TOOLS = (totalvi, muon)


def judge(case, error, warned):
    """Return the verdict of a run by the error it ended with, None for none, and the unusual warnings on its way."""
    if error is not None:
        frames = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
        inside = [part[part.index("site-packages") + 1] for part in frames if "site-packages" in part]
        return CLEAR if str(error) and (not inside or inside[-1] in OF_THE_TOOL) else DEEP
    if not case.refused:
        return USED
    return TOLD if warned else SILENT


def attempt(tool, case, path, usual, pipe):
    """Run a tool on a case, in a process of its own, and send verdict, message and warnings.

    What it warns of on good cells, too, is `usual` and tells nobody what is wrong with these.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            assert np.isfinite(tool(path)).all(), "the result is not finite"
        except Exception as caught:
            error = caught
    said = list(dict.fromkeys(one_line(warning.message) for warning in caught))
    news = [text for text in said if text[:SAME] not in usual]
    pipe.send((judge(case, error, news), one_line(error or "; ".join(news)), [text[:SAME] for text in said]))


def one_line(text):
    return " ".join(str(text).split())[:100]


def verdict(tool, case, path, usual=frozenset()):
    """Return verdict, message and warnings of a tool on a case; a process that ends or hangs has crashed."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=attempt, args=(tool, case, path, usual, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(MOST_SECONDS) else (DEEP, f"no end within {MOST_SECONDS} s", [])
    except EOFError:
        return DEEP, "the process was killed", []
    finally:
        process.kill()
        process.join()


def kept_rows():
    """Return the rows of the table as it is, by group and input."""
    if not PEERS.exists():
        return {}
    with PEERS.open(newline="", encoding="utf-8") as file:
        return {tuple(row[:2]): row for row in list(csv.reader(file, delimiter="\t"))[1:]}


def make(case, cells, place):
    """Return the path of what a case makes of good cells in a new folder."""
    place.mkdir()
    with quiet():
        made = case.make(cells, place)
        return made if hasattr(made, "exists") else write(cells if made is None else made, place / "cells")


def main():
    asked = set(sys.argv[1:])
    for slow in ("scvi.model", "muon"):
        import_module(slow)  # once: each case's process is forked from this one
    cells = simulate(160, 300, 8, 3, n_isotypes=1, rare_fraction=0.2)
    rows, kept = [], kept_rows()
    with tempfile.TemporaryDirectory() as folder:
        good = [write(data, Path(folder, "good")) for data in (cells.copy(), rna_of(cells))]
        usual = {tool: {text for path in good for text in verdict(tool, CATALOGUE[0], path)[2]} for tool in TOOLS}
        for i, case in enumerate(case for case in CATALOGUE if case.group != "Labels" and not case.options):
            if asked and case.what not in asked:
                rows += [row for name, row in kept.items() if name == (case.group, case.what)]
                continue
            path = make(case, cells.copy(), Path(folder, str(i)))
            if case.what == "no permission to read" and os.access(path, os.R_OK):
                continue  # this user may read everything
            row = [case.group, case.what]
            for tool in TOOLS:
                row += verdict(tool, case, path, usual[tool])[:2]
            print(*row, sep=" | ", flush=True)
            rows.append(row)
    with PEERS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        tools = [f"totalVI (scvi-tools {version('scvi-tools')})", f"muon {version('muon')}"]
        table.writerow(["group", "input", tools[0], "totalVI's words", tools[1], "muon's words"])
        table.writerows(rows)


if __name__ == "__main__":
    main()
