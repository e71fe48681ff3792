"""Several processes for one command: found (torchrun, Slurm) or started; the first alone speaks and writes."""

import atexit
import logging
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

from scfusionttt.errors import SettingError

#: Seconds that the other processes have to end after the first.
PATIENCE = 10.0
#: What torchrun tells a process, by what Slurm's srun tells it.
_SLURM = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
    "GROUP_RANK": "SLURM_NODEID",
}

_rank = 0


def is_first() -> bool:
    """Tell whether this process is the one that writes."""
    return _rank == 0


def start(devices: int, nodes: int) -> None:
    """See to `devices` processes on each of `nodes` machines, this one among them.

    Raises
    ------
    SettingError
        When another number was started, or when there is more than one machine and none was started elsewhere.
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
            f"{started} processes were started, and --devices {devices} --nodes {nodes} are {wanted}: give as many as "
            "there are on each machine, and the number of machines"
        )
    _rank = int(os.environ["RANK"]) if wanted > 1 else 0
    if _rank:  # every process meets the same errors and tells the same: once is enough
        logging.getLogger("scfusionttt").setLevel(logging.CRITICAL)
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)


def _start_others(devices: int) -> None:
    """Start this command anew for ranks 1, 2, ...; cores are shared out evenly."""
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
    """Set what torchrun sets; the first machine of the step is where the processes meet."""
    os.environ |= {name: os.environ[there] for name, there in _SLURM.items()}
    machines = os.environ.get("SLURM_STEP_NODELIST", "")
    first = subprocess.run(
        ["scontrol", "show", "hostnames", machines], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    os.environ.setdefault("MASTER_ADDR", first)
    os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 20_000))
