"""Systems that run in an environment of their own, as their requirements conflict; cells and results pass as files."""

import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import pandas as pd
import pooch
from scipy import io, sparse

from scfusionttt.comparison.cells import Cells
from scfusionttt.errors import NotInstalledError, SettingError
from scfusionttt.io.quiet_warnings import quiet

_SCRIPTS = Path(__file__).parent / "system_scripts"
#: Seconds after which a system is stopped, unless ``SCFUSIONTTT_TIMEOUT`` is set.
TIMEOUT = 3600
#: A table with a row per cell, or a weighted graph of the cells [n, n].
Output: TypeAlias = "pd.DataFrame | sparse.csr_matrix"


@dataclass(frozen=True)
class Counts:
    """Raw counts of cells for a system: RNA [n, g], proteins [n, p] if measured; labels, empty if unknown; batches.

    Cells without RNA have no counts of it; those without proteins have NaN.
    """

    rna: sparse.csr_matrix
    genes: pd.Index
    protein: pd.DataFrame | None = None
    labels: np.ndarray | None = None
    batches: np.ndarray | None = None

    def write(self, folder: Path) -> None:
        """Write ``rna.mtx`` (cells, genes), ``genes.txt``; if given, ``protein.csv``, ``label.txt``, ``batch.txt``."""
        folder.mkdir()
        io.mmwrite(folder / "rna.mtx", self.rna)
        _write_lines(folder / "genes.txt", self.genes)
        if self.protein is not None:
            self.protein.to_csv(folder / "protein.csv", index=False)
        for name, values in {"label": self.labels, "batch": self.batches}.items():
            if values is not None:
                _write_lines(folder / f"{name}.txt", values)


@dataclass(frozen=True, kw_only=True)
class System:
    """A script in ``system_scripts`` that gets cells and a seed, and the environment that it needs.

    Attributes
    ----------
    name
        Of the environment and of the script.
    package
        What the script runs, as pip (or R) calls it.
    version
        Version for pip; an R package is used in any version.
    requirements
        What pip installs besides; `package` itself is then installed without its outdated or conflicting requirements.
    in_r
        The command that installs `package` in R; empty for Python.
    all_genes
        Whether it gets all genes, as it selects variable genes itself.
    """

    name: str
    package: str
    version: str = ""
    requirements: tuple[str, ...] = ()
    in_r: str = ""
    all_genes: bool = False

    @property
    def how_to_install(self) -> str:
        """The commands that build the environment."""
        if self.in_r:
            return self.in_r
        folder = environments() / self.name
        pip = f"{shlex.quote(str(folder / 'bin' / 'pip'))} install"
        exact = f"{self.package}=={self.version}"
        needs = " ".join(f"'{one}'" if "<" in one else one for one in self.requirements)
        install = f"{pip} {needs} && {pip} --no-deps {exact}" if needs else f"{pip} {exact}"
        return f"python3 -m venv {shlex.quote(str(folder))} && {install}"

    def versions(self) -> dict[str, str]:
        """Return the version of the package in its environment.

        Raises
        ------
        NotInstalledError
            There is no such environment, or the package is missing in it.
        """
        if self.in_r:
            ask = ["-e", f"cat(as.character(packageVersion('{self.package}')))"]
        else:
            ask = ["-c", f"from importlib.metadata import version; print(version('{self.package}'))"]
        try:
            found = subprocess.run([self._interpreter, *ask], capture_output=True, text=True, check=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotInstalledError(f"not installed; {self.how_to_install}") from error
        return {self.package: found.stdout.split()[-1]}  # an .Rprofile may print before

    def run(self, cells: Counts, seed: int, *, query: Counts | None = None) -> Output:
        """Return what the script makes of the cells, and of the cells of a query if it needs some.

        Raises
        ------
        TimeoutError
            It took longer than `TIMEOUT`, or than the environment variable ``SCFUSIONTTT_TIMEOUT`` says.
        RuntimeError
            The script failed; the message is its last line.
        """
        script = _SCRIPTS / f"run_{self.name}.{'R' if self.in_r else 'py'}"
        with TemporaryDirectory(prefix=f"{self.name}-") as name:
            folder = Path(name)
            for part, counts in {"cells": cells, "query": query}.items():
                if counts is not None:
                    counts.write(folder / part)
            _execute([self._interpreter, str(script), str(folder), str(seed)], folder)
            if (folder / "result.mtx").exists():
                with quiet():
                    return sparse.csr_matrix(io.mmread(folder / "result.mtx"))
            return pd.read_csv(folder / "result.csv", keep_default_na=False)

    @property
    def _interpreter(self) -> str:
        return "Rscript" if self.in_r else str(environments() / self.name / "bin" / "python")


def represent(system: System, cells: Cells, seed: int) -> "np.ndarray | sparse.csr_matrix":
    """Return the embedding [n, d] or graph [n, n] that a system makes of both modalities."""
    assert cells.cite.protein is not None
    rna = cells.cite.rna if system.all_genes else cells.cite.rna[:, cells.variable]
    protein = pd.DataFrame(cells.protein_counts, columns=cells.cite.protein.var_names)
    batches = None if cells.batch_key is None else cells.batches
    output = system.run(Counts(rna.X, rna.var_names, protein, batches=batches), seed)
    if isinstance(output, pd.DataFrame):
        return output.to_numpy()
    output.setdiag(0)  # a cell is no neighbour of itself; Seurat's graph says so
    output.eliminate_zeros()
    return output


def environments() -> Path:
    """Return the folder of the environments: ``SCFUSIONTTT_ENVS``, or one in the default cache folder of the system."""
    return Path(os.environ.get("SCFUSIONTTT_ENVS") or pooch.os_cache("scfusionttt") / "envs").absolute()


def _execute(command: list[str], folder: Path) -> None:
    """Run a command in `folder`; stop it and all that it started if it takes too long or the user interrupts it."""
    seconds = _timeout()
    # what the caller's own packages need must not reach the other environment
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = folder / "log.txt"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, cwd=folder, env=variables, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise TimeoutError(f"stopped after {seconds:g} s; SCFUSIONTTT_TIMEOUT changes the limit") from None
        except BaseException:
            _kill(process)
            raise
    if code:
        lines = log.read_text(errors="replace").split("\n")
        raise RuntimeError(next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}"))


def _timeout() -> float:
    text = os.environ.get("SCFUSIONTTT_TIMEOUT", str(TIMEOUT))
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"SCFUSIONTTT_TIMEOUT must be a number of seconds (got {text!r})") from None


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _write_lines(path: Path, names: "pd.Index | np.ndarray") -> None:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


_TORCH = ("torch", "numpy", "pandas", "scipy")
SEURAT = System(name="seurat", package="Seurat", in_r="apt-get install r-cran-seurat", all_genes=True)
_BIOCONDUCTOR = """Rscript -e 'install.packages("BiocManager", repos = "https://cloud.r-project.org")'"""
CITEFUSE = System(
    name="citefuse", package="CiteFuse", all_genes=True,
    in_r=f"""{_BIOCONDUCTOR} -e 'BiocManager::install("CiteFuse")'""",
)  # fmt: skip
SCOIT = System(name="scoit", package="SCOIT", version="0.1.2", requirements=(*_TORCH, "anndata", "scikit-learn"))
MIDAS = System(
    name="midas", package="scmidas", version="0.3.0",
    requirements=(
        *_TORCH, "anndata<0.13", "lightning", "matplotlib", "mudata<0.4", "natsort", "pandas<3", "requests", "scanpy",
        "toml", "tqdm",
    ),
)  # fmt: skip
SCIPENN = System(name="scipenn", package="sciPENN", version="0.9.6", requirements=(*_TORCH, "scanpy", "tqdm"))
CELLTYPIST = System(
    name="celltypist", package="celltypist", version="1.7.1",
    requirements=("click", "leidenalg", "openpyxl", "requests", "scanpy", "scikit-learn<1.8"),
)  # fmt: skip
SYMPHONY = System(name="symphony", package="symphonypy", version="0.2.4")
SYSTEMS = (SEURAT, CITEFUSE, SCOIT, MIDAS, SCIPENN, CELLTYPIST, SYMPHONY)
