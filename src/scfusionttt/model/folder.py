"""A model on disk: ``weights.safetensors``, ``manifest.json``, ``history.csv``. Nothing in it can run code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scfusionttt.config import Config
from scfusionttt.errors import ModelFolderError, OutputError, SettingError, first_line
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.model.old_formats import upgraded

if TYPE_CHECKING:  # paths are checked before torch is loaded
    from torch import Tensor

#: Raised when older readers could no longer understand what is written. 2: kernel head, novelty. 3: PCA components.
#: 4: whitening. 5: fewer settings, sizes of the architecture apart. 6: batches.
FORMAT_VERSION = 6

WEIGHTS, MANIFEST, HISTORY = "weights.safetensors", "manifest.json", "history.csv"
_KEYS = ("stage", "settings", "species", "features", "preprocessing", "classes", "metrics")


@dataclass(frozen=True)
class ModelFolder:
    """The content of a model folder.

    Parameters
    ----------
    manifest
        Plain values: stage, settings, sizes, species, features (one mapping per feature, in order), preprocessing,
        classes, metrics, versions.
    weights
        Tensors by name.
    history
        Training curves, one row per epoch.
    """

    manifest: Mapping[str, Any]
    weights: Mapping[str, "Tensor"]
    history: pd.DataFrame

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the folder; with `overwrite`, an existing model is replaced once the new one is complete.

        Raises
        ------
        OutputError
            It cannot be written, or is a model already and `overwrite` is not set.
        """
        from safetensors.torch import save

        check_model_path(path, overwrite=overwrite)
        with replacing(path, ours=is_model) as temporary:
            temporary.mkdir()
            weights = save({name: tensor.contiguous() for name, tensor in self.weights.items()})
            (temporary / WEIGHTS).write_bytes(weights)  # a full disk is an OSError here, unlike in safetensors
            text = json.dumps({"format_version": FORMAT_VERSION, **self.manifest}, indent=1, allow_nan=False)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            self.history.to_csv(temporary / HISTORY, index=False)

    @classmethod
    def read(cls, path: str | Path) -> "ModelFolder":
        """Read a folder.

        Raises
        ------
        ModelFolderError
            When the folder or a file of it is missing, damaged or of a newer format.
        """
        folder, manifest = Path(path), read_manifest(path)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(folder / WEIGHTS)
            history = _read_history(folder / HISTORY)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelFolderError(f"{path}: is damaged ({first_line(error)}); copy it again") from error
        return cls(manifest, weights, history)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return the manifest of a model folder in the present format, without loading the weights or torch.

    Raises
    ------
    ModelFolderError
        The folder is missing or incomplete, or the manifest is damaged or of a newer format.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFolderError(f"{path}: no such model folder; use one written by pretrain, finetune or transfer")
    for name in (MANIFEST, WEIGHTS, HISTORY):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{path}: {name} is missing; copy the whole model folder")
    return upgraded(_read_manifest(folder / MANIFEST), folder)


def read_config(path: str | Path) -> Config:
    """Return the settings of a model folder; raises as `read_manifest` does."""
    try:
        return Config.from_dict(read_manifest(path)["settings"])
    except (AttributeError, KeyError, TypeError, ValueError, SettingError) as error:
        raise ModelFolderError(f"{path}: has no valid settings ({error}); copy the model folder again") from error


def check_model_path(path: str | Path, *, overwrite: bool) -> None:
    """Raise OutputError, before the work, if a model cannot be written to `path` or would replace another unasked."""
    check_target(path, folder=True, ours=is_model)
    folder = Path(path)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{path} is a model already; choose another name, or pass overwrite=True to replace it")


def is_model(folder: Path) -> bool:
    """Return whether a folder contains a readable model and nothing else."""
    if {file.name for file in folder.iterdir()} != {WEIGHTS, MANIFEST, HISTORY}:
        return False
    try:
        _read_manifest(folder / MANIFEST)
    except ModelFolderError:
        return False
    return True


def _read_history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:  # an empty line: the model was not trained for any epoch
        if not path.stat().st_size:
            raise
        return pd.DataFrame()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: is not readable JSON ({error}); copy the model folder again") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise ModelFolderError(f"{path}: has no format version; this is not a model of scfusionttt")
    if version > FORMAT_VERSION:
        raise ModelFolderError(
            f"{path}: has format {version}, newer than {FORMAT_VERSION}, the newest supported; update scfusionttt"
        )
    missing = [key for key in _KEYS if key not in manifest]
    if missing:
        raise ModelFolderError(f"{path}: lacks {', '.join(missing)}; copy the model folder again")
    return manifest
