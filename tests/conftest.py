import logging
import os
import shlex
import signal
import sys
import warnings
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

# Tensors this small are not worth a second thread, which costs most where the machine is busy. Torch looks when loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Triton interprets its kernels, so that they are tried on any machine. It looks when loaded, which Lightning does.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Processes that tests start import the code under test.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH")])
)

# A busy machine is no error; in CI every run draws the same examples.
settings.register_profile(
    "scfusionttt", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("scfusionttt")

#: A network and stages that train within a second.
TINY = {
    "network": {"width": 16, "latent": 8},
    "pretrain": {"epochs": 2},
}


@pytest.fixture(scope="session")
def real_data():
    """Folder of real data sets; tests that need it skip, and say so, where it is not set."""
    folder = os.environ.get("SCFUSIONTTT_DATA")
    if not folder:
        pytest.skip("SCFUSIONTTT_DATA is not set: real data are not at hand")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny():
    """Settings of a model that trains within a second."""
    return TINY


@pytest.fixture(scope="session")
def cells():
    """Simulated CITE-seq of 160 cells of three types, the isotype control included."""
    from scfusionttt.simulation.simulate import simulate

    return simulate(160, 300, 8, 3, n_isotypes=1, rare_fraction=0.2)


@pytest.fixture(scope="session")
def rna_cells(cells):
    """RNA-only cells of the same types, from another platform."""
    from scfusionttt.simulation.simulate import simulate_query

    return simulate_query(cells, 90)


@pytest.fixture(scope="session")
def trained(cells, rna_cells):
    """The models of all stages, on tiny data; tests that train them on take a copy."""
    from scfusionttt.model.fusionttt import FusionTTT

    pretrained = FusionTTT("fast", progress=False, **TINY).pretrain(cells)
    finetuned = deepcopy(pretrained).finetune(cells, labels_key="cell_type", train_fraction=0.75)
    student = finetuned.transfer(rna_cells, labels_key="cell_type", train_fraction=0.3)
    return SimpleNamespace(
        pretrained=pretrained, finetuned=finetuned, student=student, zero_shot=finetuned.transfer(rna_cells)
    )


@pytest.fixture
def scfusionttt(monkeypatch, capsys):
    """Run the command line as a shell does; returns the exit code, stdout and stderr."""
    from scfusionttt.cli import main

    log = logging.getLogger("scfusionttt")
    before = log.handlers, log.propagate, log.level
    on_term = signal.getsignal(signal.SIGTERM)

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["scfusionttt", *shlex.split(arguments)])
        capsys.readouterr()
        try:
            with warnings.catch_warnings(), pytest.raises(SystemExit) as left:
                main()
        finally:
            log.handlers, log.propagate = before[:2]
            log.setLevel(before[2])
            signal.signal(signal.SIGTERM, on_term)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=left.value.code or 0, out=out, err=err)

    return run


@pytest.fixture
def full_disk():
    """Return a context in which no file can grow beyond some bytes: what a full disk does, without one."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")

    @contextmanager
    def make(most=4096):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return make
