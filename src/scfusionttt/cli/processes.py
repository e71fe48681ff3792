"""Several processes for one command, started by torchrun, by Slurm or here; only the first prints and writes."""

import atexit
import logging
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

from scfusionttt.errors import SettingError

#: Seconds to wait for the other processes after the first has ended.
PATIENCE = 10.0
#: Environment variables of torchrun, and those of Slurm's srun with the same meaning.
_SLURM = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
    "GROUP_RANK": "SLURM_NODEID",
}

_rank = 0


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return _rank == 0


def start(devices: int, nodes: int) -> None:
    """Make sure that `devices` processes run on each of `nodes` machines, this one included.

    Raises
    ------
    SettingError
        The number of processes differs, or there are several machines and the processes were not started on them.
    """
    global _rank
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        _read_slurm()
    wanted, started = devices * nodes, int(os.environ.get("WORLD_SIZE", 1))
    if started == 1 and wanted > 1:
        if nodes > 1:
            raise SettingError(f"--nodes {nodes}: start this command on each machine with torchrun or srun")
        _start_others(devices)
    elif started != wanted:
        raise SettingError(
            f"expected {wanted} processes ({devices} devices x {nodes} nodes), found {started}; --devices is the "
            "number per machine and --nodes the number of machines"
        )
    _rank = int(os.environ["RANK"]) if wanted > 1 else 0
    if _rank:  # all processes meet the same errors, and the first reports them
        logging.getLogger("scfusionttt").setLevel(logging.CRITICAL)
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)


def _start_others(devices: int) -> None:
    """Start this command again for ranks 1, 2, ...; each gets the same number of cores."""
    threads = str(max(1, (os.cpu_count() or 1) // devices))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    os.environ |= {
        "WORLD_SIZE": str(devices), "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    command = [sys.executable, "-m", "scfusionttt.cli", *sys.argv[1:]]
    others = []
    for rank in range(1, devices):
        own = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        others.append(subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL))
    atexit.register(_end, others)


def _end(others: list[subprocess.Popen]) -> None:
    for other in others:
        try:
            other.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


def _read_slurm() -> None:
    """Set the variables that torchrun sets; the first machine of the step is the master."""
    os.environ |= {name: os.environ[there] for name, there in _SLURM.items()}
    machines = os.environ.get("SLURM_STEP_NODELIST", "")
    first = subprocess.run(
        ["scontrol", "show", "hostnames", machines], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    os.environ.setdefault("MASTER_ADDR", first)
    os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 20_000))
