"""The demo: all three stages on simulated CITE-seq data, with scores and the report."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.features import match_features
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import OutputError
from scfusionttt.evaluation import Evaluation, confusion, evaluate_predictions, evaluate_representation
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.plotting import figures
from scfusionttt.report import write_report
from scfusionttt.report.html import Figure, Section
from scfusionttt.report.tables import metric_table
from scfusionttt.simulation.simulate import simulate, simulate_query

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

LABELS, SPLIT, TRAIN_FRACTION, QUERY_FRACTION = "cell_type", "split", 0.75, 0.3
#: What the demo writes, in this order.
WRITTEN = ("citeseq.h5mu", "rna.h5ad", "pretrained", "finetuned", "transferred", "metrics.json", "report.html")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the simulated data. With the defaults, the three stages take less than three minutes on two cores."""

    cells: int = 1200
    genes: int = 2000
    proteins: int = 20
    types: int = 6
    query: int = 800


def run_demo(out: Path, *, show: Callable[[str, pd.DataFrame], None], seed: int = 0, size: Size | None = None) -> Path:
    """Run the demo and write ``report.html``, ``metrics.json``, the data and the three models to a folder.

    Parameters
    ----------
    out
        Folder to write to. It is created if necessary; an earlier demo is replaced.
    show
        Called with the title and the table of each result as soon as it is available.
    size
        Size of the simulated data.

    Returns
    -------
    Path
        The HTML page.

    Raises
    ------
    OutputError
        The folder cannot be created, or it contains other files.
    """
    _make_folder(out)
    mdata, query = _data(out, size or Size(), seed)
    model = FusionTTT("fast", seed=seed).pretrain(mdata)
    model = _saved(model, out / "pretrained", "pretrain citeseq.h5mu --preset fast --out pretrained")
    unsupervised = evaluate_representation(model.embed(mdata), mdata.obs[LABELS])
    show("stage 1, unsupervised: clusters of the embedding", unsupervised.summary())

    model.finetune(mdata, labels_key=LABELS, train_fraction=TRAIN_FRACTION, baseline=True)
    labels = f"--labels-key {LABELS} --baseline"
    command = f"finetune citeseq.h5mu --model pretrained {labels} --train-fraction {TRAIN_FRACTION} --out finetuned"
    model = _saved(model, out / "finetuned", command)
    held_out = pd.DataFrame({"CITE-seq": model.metrics["finetune"]["metrics"]}).T
    show("stage 2, held-out: cell types of CITE-seq cells", held_out)

    student = model.transfer(query, labels_key=LABELS, split=SPLIT, baseline=True)
    command = f"transfer rna.h5ad --model finetuned {labels} --split {SPLIT} --out transferred"
    student = _saved(student, out / "transferred", command)
    transferred = pd.DataFrame({"RNA only": student.metrics["transfer"]["metrics"]}).T
    show("stage 3, held-out: cell types of RNA-only cells", transferred)
    unseen = (query.obs[SPLIT] == "test").to_numpy()
    guessed = model.transfer(query).predict(query)["label"][unseen]
    zero_shot = evaluate_predictions(guessed, query.obs[LABELS][unseen], protocol="zero-shot")
    show("stage 3, zero-shot: the same cells, without labels of RNA-only cells", zero_shot.summary())

    scores = {"unsupervised": unsupervised.to_dict(), **student.metrics, "zero-shot": zero_shot.to_dict()}
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    predicted = student.predict(query)["label"].astype(str)[unseen]
    counts = confusion(query.obs[LABELS].astype(str)[unseen], predicted)
    write_report(
        model, as_citeseq(mdata), out / "report.html", labels_key=LABELS, title="scFusionTTT on simulated CITE-seq",
        command=f"scfusionttt report citeseq.h5mu --model finetuned --labels-key {LABELS} --out report.html",
        more=[_transfer_section(counts, transferred, zero_shot), _cell_section(model, mdata)],
    )  # fmt: skip
    return out / "report.html"


def _data(out: Path, size: Size, seed: int) -> tuple["MuData", "AnnData"]:
    """Simulate and write CITE-seq cells, and RNA-only cells split into training and test cells."""
    mdata = simulate(size.cells, size.genes, size.proteins, size.types, seed=seed)
    query = simulate_query(mdata, size.query, seed=seed + 1)
    codes = query.obs[LABELS].cat.codes.to_numpy()
    train, _ = stratified_split(codes, fraction=QUERY_FRACTION, seed=seed)
    query.obs[SPLIT] = np.where(np.isin(np.arange(size.query), train), "train", "test")
    with quiet(), replacing(out / "citeseq.h5mu") as path:
        mdata.write_h5mu(path)
    with quiet(), replacing(out / "rna.h5ad") as path:
        query.write_h5ad(path)
    return mdata, query


def _saved(model: FusionTTT, path: Path, command: str) -> FusionTTT:
    """Save a model with the command that does the same, and return it as read from its folder."""
    model.save(path, overwrite=True, command=f"scfusionttt {command}")
    return FusionTTT.load(path, device=model.device, progress=model.progress)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror}); choose another folder") from error
    check_target(out, folder=True, ours=_is_demo)


def _is_demo(folder: Path) -> bool:
    """Return whether a folder contains an earlier demo, complete or interrupted, and nothing else."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return WRITTEN[0] in names and names <= set(WRITTEN)


def _transfer_section(counts: pd.DataFrame, transferred: pd.DataFrame, zero_shot: Evaluation) -> Section:
    """Return the scores of stage 3, with and without labels of RNA-only cells, on the same cells."""
    learned = f"RNA-only cells, trained on {QUERY_FRACTION:.0%} of their labels"
    return Section(
        "Transfer to RNA-only cells",
        "The model of this page, transferred to cells of another platform without proteins. Both tables score the same "
        "cells, of which no label was used.",
        tables=[
            metric_table(transferred, protocol="held-out", caption=learned),
            metric_table(zero_shot.summary(), protocol="zero-shot", caption="Without labels of RNA-only cells"),
        ],
        figures=[
            Figure(
                figures.confusion(counts),
                f"Known and predicted cell types of {counts.to_numpy().sum():,} held-out RNA-only cells.",
                "confusion matrix of cell types",
            )
        ],
    )


def _cell_section(model: FusionTTT, mdata: "MuData") -> Section:
    features, preprocessing = model.features, model.preprocessing
    cell = as_citeseq(mdata)[np.array([0])]
    match = match_features(cell, features)
    axes = figures.genome_strip(
        features.genes,
        preprocessing.log_normalized(cell, match).toarray()[0],
        proteins=features.proteins.assign(value=preprocessing.log_ratios(cell, match)[0]),
        unit="RNA, log1p counts per 10,000",
        protein_unit="protein, log-ratio",
        title=f"{cell.rna.obs_names[0]} ({cell.obs[LABELS].iloc[0]})",
    )
    caption = "One cell as the network reads it: genes in genome order, each protein at its coding gene."
    return Section("One cell", figures=[Figure(axes, caption, "genes of one cell in genome order, with its proteins")])
