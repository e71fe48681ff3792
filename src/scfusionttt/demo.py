"""The demo: all three stages on simulated CITE-seq data, with scores, figures and an HTML page."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scfusionttt import __version__
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.features import match_features
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import OutputError
from scfusionttt.evaluation import Evaluation, cluster, confusion, evaluate_predictions, evaluate_representation, umap
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.plotting import figures
from scfusionttt.report.html import Figure, Section, html_report
from scfusionttt.report.tables import key_values, metric_table
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
    start = time.monotonic()
    _make_folder(out)
    size = size or Size()
    mdata = simulate(size.cells, size.genes, size.proteins, size.types, seed=seed)
    query = simulate_query(mdata, size.query, seed=seed + 1)
    codes = query.obs[LABELS].cat.codes.to_numpy()
    train, _ = stratified_split(codes, fraction=QUERY_FRACTION, seed=seed)
    query.obs[SPLIT] = np.where(np.isin(np.arange(size.query), train), "train", "test")
    with quiet(), replacing(out / "citeseq.h5mu") as path:
        mdata.write_h5mu(path)
    with quiet(), replacing(out / "rna.h5ad") as path:
        query.write_h5ad(path)

    model = FusionTTT("fast", seed=seed).pretrain(mdata)
    model.save(out / "pretrained", overwrite=True)
    z = model.embed(mdata)
    unsupervised = evaluate_representation(z, mdata.obs[LABELS])
    show("stage 1, unsupervised: clusters of the embedding", unsupervised.summary())

    model.finetune(mdata, labels_key=LABELS, train_fraction=TRAIN_FRACTION, baseline=True)
    model.save(out / "finetuned", overwrite=True)
    held_out = pd.DataFrame({"CITE-seq": model.metrics["finetune"]["metrics"]}).T
    show("stage 2, held-out: cell types of CITE-seq cells", held_out)

    predicted = model.transfer(query).predict(query)["label"]
    zero_shot = evaluate_predictions(predicted, query.obs[LABELS], protocol="zero-shot")
    student = model.transfer(query, labels_key=LABELS, split=SPLIT, baseline=True)
    student.save(out / "transferred", overwrite=True)
    predicted = student.predict(query)["label"]
    transferred = pd.DataFrame({"RNA only": student.metrics["transfer"]["metrics"]}).T
    show("stage 3, held-out: cell types of RNA-only cells", transferred)
    show("stage 3, zero-shot: cell types of RNA-only cells, without their labels", zero_shot.summary())

    seconds = time.monotonic() - start
    scores = {"unsupervised": unsupervised.to_dict(), **student.metrics, "zero-shot": zero_shot.to_dict()}
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    sections = [
        _fusion_section(mdata, z, unsupervised, seed),
        _types_section(query, predicted, held_out, transferred, zero_shot),
        _genome_section(model, mdata),
        Section("Training", figures=[_curves(student.history)]),
        _settings_section(model),
    ]
    page = html_report(
        "scFusionTTT on simulated CITE-seq",
        sections,
        summary=[
            "Simulated blood cells: an embedding of RNA and proteins, cell types, and their transfer to RNA-only cells."
        ],
        facts={"cells": size.cells, "genes": size.genes, "proteins": size.proteins, "seconds": round(seconds)},
        footer=f"scfusionttt {__version__}",
    )
    with replacing(out / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return out / "report.html"


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


def _fusion_section(mdata: "MuData", z: np.ndarray, scores: Evaluation, seed: int) -> Section:
    coords = umap(z, seed=seed)
    clusters = cluster(z, mdata.obs[LABELS].nunique(), seed=seed).labels.astype(str)
    by_type = figures.umap(coords, mdata.obs[LABELS], title="cell type")
    by_cluster = figures.umap(coords, clusters, title="Leiden cluster")
    return Section(
        "Embedding",
        "RNA and proteins of each cell are combined in one vector. No labels were used in training.",
        tables=[
            metric_table(
                scores.summary(),
                protocol="unsupervised",
                caption="Leiden clusters compared with the simulated cell types",
            )
        ],
        figures=[
            Figure(by_type, "UMAP of the embedding, coloured by simulated cell type.", "UMAP by cell type"),
            Figure(by_cluster, "UMAP of the embedding, coloured by Leiden cluster.", "UMAP by cluster"),
        ],
    )


def _types_section(
    query: "AnnData", predicted: pd.Series, held_out: pd.DataFrame, transferred: pd.DataFrame, zero_shot: Evaluation
) -> Section:
    unseen = (query.obs[SPLIT] == "test").to_numpy()
    counts = confusion(query.obs[LABELS].astype(str)[unseen], predicted.astype(str)[unseen])
    tables = [
        metric_table(
            held_out, protocol="held-out", caption=f"CITE-seq cells, trained on {TRAIN_FRACTION:.0%} of their labels"
        ),
        metric_table(
            transferred, protocol="held-out", caption=f"RNA-only cells, trained on {QUERY_FRACTION:.0%} of their labels"
        ),
        metric_table(zero_shot.summary(), protocol="zero-shot", caption="RNA-only cells, trained without their labels"),
    ]
    caption = f"True and predicted cell types of the held-out RNA-only cells ({unseen.sum()} of {len(unseen)})."
    return Section(
        "Cell types",
        "Fine-tuned on part of the CITE-seq cells, then transferred to RNA-only cells of another platform.",
        tables=tables,
        figures=[Figure(figures.confusion(counts), caption, "confusion matrix of cell types")],
    )


def _genome_section(model: FusionTTT, mdata: "MuData") -> Section:
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
    return Section("Genome", figures=[Figure(axes, caption, "genes of one cell in genome order, with its proteins")])


def _curves(history: pd.DataFrame) -> Figure:
    return Figure(figures.training_curves(history), "Loss per epoch, by stage.", "training curves")


def _settings_section(model: FusionTTT) -> Section:
    commands = f"""scfusionttt pretrain citeseq.h5mu --out pretrained --preset fast
scfusionttt finetune citeseq.h5mu --model pretrained --labels {LABELS} --train-fraction {TRAIN_FRACTION} --out finetuned
scfusionttt transfer rna.h5ad --model finetuned --labels {LABELS} --split {SPLIT} --out transferred"""
    return Section(
        "Settings and commands",
        "These commands, run in the folder of this page, do the same.",
        tables=[key_values(model.config.to_dict(), caption="Settings")],
        code=commands,
    )
