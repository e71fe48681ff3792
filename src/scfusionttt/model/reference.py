"""References: trained models that are shared, with a card, in the layout of the Hugging Face Hub.

A folder has README.md (the card), manifest.json, weights.safetensors, history.csv and metrics.json; nothing in it is
executed. One reference of blood cells is part of the package.
"""

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from scfusionttt.config import Config
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import match_features
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import InputDataError, ModelFolderError, SettingError
from scfusionttt.evaluation import evaluate_predictions
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.labels import usable_labels
from scfusionttt.model.annotation import Annotation
from scfusionttt.model.folder import HISTORY, MANIFEST, WEIGHTS, ModelFolder
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.hub import HUB, local_folder
from scfusionttt.model.inputs import Data, InputOptions, check_cells

#: Where the references of the package are.
SHIPPED = Path(__file__).parent.parent / "references"
#: The reference that is used by default.
DEFAULT = "pbmc"
CARD, METRICS = "README.md", "metrics.json"
#: obs column that marks the training cells while a reference is scored.
_SPLIT = "reference_split"
#: Tensors of at least so many values are stored as float16.
MANY_VALUES = 1000


def annotate(
    data: Data,
    *,
    reference: str | Path = DEFAULT,
    unknown: float | None = 0.005,
    inplace: bool = True,
    device: str = "auto",
    **input_options: Unpack[InputOptions],
) -> Annotation:
    """Predict cell types and impute proteins with a reference, without training.

    Parameters
    ----------
    data, **input_options
        Cells with RNA counts; see Notes of :class:`scfusionttt.FusionTTT`.
    reference
        Name of a reference of the package (see :func:`references`), a model folder, or ``hf://owner/name@revision``.
    unknown
        As in :meth:`scfusionttt.FusionTTT.annotate`.
    inplace
        As there, but True by default: label, probability, ontology id and proteins are written into `data`.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    As :meth:`scfusionttt.FusionTTT.annotate`.

    Examples
    --------
    >>> import anndata, scfusionttt  # doctest: +SKIP
    >>> adata = anndata.read_h5ad("rna.h5ad")  # doctest: +SKIP
    >>> scfusionttt.annotate(adata).cells["label"].value_counts()  # doctest: +SKIP
    """
    model = FusionTTT.load(find(reference), device=device, progress=False)
    return model.annotate(data, unknown=unknown, inplace=inplace, **input_options)


def references() -> list[str]:
    """Return the names of the references that are part of the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))


def find(reference: str | Path) -> str | Path:
    """Return the folder of a reference, or its address on the Hub.

    Raises
    ------
    SettingError
        There is no such reference.
    """
    text = str(reference)
    if text in references():
        return SHIPPED / text
    if not text.startswith(HUB) and not Path(reference).is_dir():
        raise SettingError(
            f"there is no reference {text!r}; choose {', '.join(references()) or 'none'}, a model folder or "
            "hf://owner/name"
        )
    return reference


def card(reference: str | Path) -> str:
    """Return the text of a reference's card."""
    path = local_folder(find(reference)) / CARD
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelFolderError(f"{path.parent}: has no card ({CARD}); it is a model, but not a reference") from error


@dataclass(frozen=True, kw_only=True)
class About:
    """What a card says about a reference that its model does not know."""

    title: str
    data: str
    licence: str
    tissue: str


def build(
    data: Data, path: str | Path, about: About, *, labels_key: str, config: Config, device: str, command: str
) -> dict[str, float]:
    """Train a reference on labelled CITE-seq and write it; return its scores.

    A classifier fitted to three quarters of the labels is scored on the others, by RNA alone, in the reference's scale
    and with the vote of neighbours. The reference itself is fitted to all labels.

    Raises
    ------
    InputDataError
        The cells cannot be used, or none has proteins.
    LabelError
        There are no such labels.
    OutputError
        `path` cannot be written, or is something else than a reference.
    """
    check_target(path, folder=True, ours=is_reference)
    cite = check_cells(data)
    usable_labels(cite.obs, labels_key)  # what is wrong with them is said before the work
    if cite.protein is None:
        raise InputDataError("a reference imputes proteins, and this input has none; use CITE-seq")
    model = FusionTTT(device=device)
    model.config = config
    model.pretrain(cite)
    metrics = _scores(deepcopy(model), cite, labels_key)
    write(model.finetune(cite, labels_key=labels_key), path, about, metrics, command=command)
    return metrics


def _scores(model: FusionTTT, cite: CiteSeq, labels_key: str) -> dict[str, float]:
    codes, classes = usable_labels(cite.obs, labels_key)
    train, held_out = stratified_split(codes, fraction=0.75, seed=model.config.seed)
    split = np.where(np.isin(np.arange(len(codes)), train), "train", "test")
    marked = replace(cite, obs=cite.obs.assign(**{_SPLIT: split}))
    model.finetune(marked, labels_key=labels_key, split=_SPLIT)
    by_rna = replace(cite, protein=None)[held_out]
    table = model.predict(by_rna, refine=True)
    truth = np.asarray(classes)[codes[held_out]]
    scores = evaluate_predictions(table["label"], truth, table["probability"].to_numpy(), protocol="held-out").to_dict()
    imputed = model.impute(by_rna, intervals=True)
    measured = model.preprocessing.log_ratios(cite[held_out], match_features(cite, model.features))
    covered = (imputed.low.to_numpy() <= measured) & (measured <= imputed.high.to_numpy())
    return {
        "accuracy": float(scores["metrics"]["accuracy"]),
        "macro_f1": float(scores["metrics"]["macro_f1"]),
        "interval_coverage_same_sample": float(covered[np.isfinite(measured)].mean()),
    }


def write(model: FusionTTT, path: str | Path, about: About, metrics: dict[str, Any], *, command: str) -> None:
    """Write a fine-tuned model as a reference, with large tensors as float16; an earlier reference is replaced."""
    check_target(path, folder=True, ours=is_reference)
    with replacing(path, ours=is_reference) as temporary:
        model.save(temporary, command=command)
        folder = ModelFolder.read(temporary)
        weights = {
            name: tensor.half() if tensor.is_floating_point() and tensor.numel() >= MANY_VALUES else tensor
            for name, tensor in folder.weights.items()
        }
        text = json.dumps({**folder.manifest}, separators=(",", ":"), allow_nan=False)
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        from safetensors.torch import save

        (temporary / WEIGHTS).write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
        (temporary / METRICS).write_text(json.dumps(metrics, indent=1), encoding="utf-8")
        (temporary / CARD).write_text(_card(model, Path(path).name, about, metrics, command), encoding="utf-8")


def is_reference(folder: Path) -> bool:
    """Return whether a folder is a reference and nothing else."""
    return {file.name for file in folder.iterdir()} == {CARD, MANIFEST, WEIGHTS, HISTORY, METRICS}


def _card(model: FusionTTT, name: str, about: About, metrics: dict[str, Any], command: str) -> str:
    proteins = model.features.proteins["name"].tolist()
    rows = "\n".join(f"| {score} | {value:.3f} |" for score, value in metrics.items())
    return f"""---
library_name: scfusionttt
license: {about.licence}
tags: [single-cell, cite-seq, cell-type-annotation, protein-imputation]
modality: [rna, protein]
tissue: {about.tissue}
species: {model.features.species}
---

# {about.title}

{len(model.classes)} cell types and {len(proteins)} proteins, from {len(model.features.genes)} genes.

* Cell types: {", ".join(model.classes)}
* Proteins: {", ".join(proteins)}
* Data: {about.data}
* Command: `{command}`

```python
import scfusionttt

scfusionttt.annotate(adata, reference="{name}")
```

| on cells whose labels were held out, from RNA alone | |
|---|---|
{rows}
"""
