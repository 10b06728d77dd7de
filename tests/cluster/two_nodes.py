"""A real SLURM of two nodes on one Linux machine, on the loopback only: `python tests/cluster/two_nodes.py start DIR`.

Needs root, and Debian's or Ubuntu's packages slurm-wlm and munge. Each node has 16 CPUs and 8 GPUs of type v100 to
hand out, whatever the machine has: the devices are copies of /dev/null. There are no cgroups, no accounting and no
systemd; `DIR` holds configuration, keys, sockets and logs, and `. DIR/env.sh` shows the commands of SLURM the way.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("cyto1", "cyto2")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONF = """\
ClusterName=cytovox
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
CommunicationParameters=NoAddrCache,NoInAddrAny,NoCtldInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
JobRequeue=1
GresTypes=gpu
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs=16 RealMemory=16000 Gres=gpu:v100:8
PartitionName=debug Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a cluster for tests needs root on Linux"
    if absent := [name for name in NEEDED if which(name) is None]:
        return f"a cluster for tests needs slurm-wlm and munge ({', '.join(absent)} not found)"
    return None


def which(name: str) -> str | None:
    """A command; daemons lie where a user's path does not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def start(base: Path) -> None:
    """Start what is not running yet, and wait until both nodes are idle.

    Raises
    ------
    RuntimeError
        It does not come up within half a minute.
    """
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o755)
    _name_nodes()
    _configure(base)
    environment = {**os.environ, "SLURM_CONF": str(base / "slurm.conf")}

    def run(name: str, *words: str) -> None:
        command = which(name)
        assert command is not None
        subprocess.run([command, *words], check=True, env=environment, stdout=subprocess.DEVNULL)

    if not _alive(base / "munged.pid"):
        key = base / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        run("munged", "--force", f"--seed-file={base}/munge.seed", *(f"--{k}={base}/{v}" for k, v in files.items()))
    if not _alive(base / "slurmctld.pid"):
        run("slurmctld", "-f", str(base / "slurm.conf"))
    for node in NODES:
        (base / f"spool-{node}").mkdir(exist_ok=True)
        if not _alive(base / f"slurmd-{node}.pid"):
            run("slurmd", "-N", node, "-f", str(base / "slurm.conf"))
    _wait_until_idle(environment, base)


def stop(base: Path) -> None:
    """End its jobs and daemons, and take its names out of /etc/hosts."""
    environment = {**os.environ, "SLURM_CONF": str(base / "slurm.conf")}
    subprocess.run(["scancel", "--user=root"], env=environment, timeout=20, check=False, capture_output=True)
    for name in (*(f"slurmd-{node}.pid" for node in NODES), "slurmctld.pid", "munged.pid"):
        _end(base / name)
    hosts = Path("/etc/hosts")
    lines = [line for line in hosts.read_text().splitlines() if not line.endswith(_MARK)]
    hosts.write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def two_nodes(base: Path) -> Iterator[dict[str, str]]:
    """A cluster for as long as the block lasts; what a command's environment must hold to reach it."""
    start(base)
    try:
        yield {"SLURM_CONF": str(base / "slurm.conf")}
    finally:
        stop(base)


_MARK = "# cytovox test cluster"


def _name_nodes() -> None:
    """Ranks find each other by the name of the first node."""
    hosts = Path("/etc/hosts")
    text = hosts.read_text()
    with hosts.open("a") as file:
        for node in NODES:
            if f" {node} " not in text:
                file.write(f"127.0.0.1 {node} {_MARK}\n")


def _configure(base: Path) -> None:
    if (base / "slurm.conf").is_file() and _alive(base / "slurmctld.pid"):
        return
    first = _free_ports(1 + len(NODES))
    host = socket.gethostname().partition(".")[0]
    ports = f"[{first + 1}-{first + len(NODES)}]"
    text = CONF.format(host=host, port=first, base=base, nodes=",".join(NODES), ports=ports)
    (base / "slurm.conf").write_text(text)
    (base / "state").mkdir(exist_ok=True)
    for gpu in range(8):
        device = base / f"gpu{gpu}"
        if not device.exists():
            os.mknod(device, 0o20666, os.makedev(1, 3))
    (base / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName={','.join(NODES)} Name=gpu Type=v100 File={base}/gpu[0-7]\n"
    )
    (base / "env.sh").write_text(f"export SLURM_CONF={base}/slurm.conf\n")


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody listens on."""
    for first in range(17000, 30000, 50):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")


def _alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _end(pid_file: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(50):
            if not _alive(pid_file):
                pid_file.unlink(missing_ok=True)
                return
            with contextlib.suppress(OSError):
                os.kill(int(pid_file.read_text()), number)
            time.sleep(0.1)


def _wait_until_idle(environment: dict[str, str], base: Path) -> None:
    for _ in range(60):
        finished = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%t"], env=environment, capture_output=True, text=True, check=False
        )
        states = finished.stdout.split()
        if len(states) == len(NODES) and set(states) <= {"idle", "mix", "alloc", "comp"}:
            return
        if "down" in finished.stdout or "drain" in finished.stdout:
            words = ["scontrol", "update", f"nodename={','.join(NODES)}", "state=resume"]
            subprocess.run(words, env=environment, capture_output=True, check=False)
        time.sleep(0.5)
    raise RuntimeError(f"the cluster does not come up; see the logs in {base}")


def main() -> int:
    """Start or stop from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("start", "stop"))
    parser.add_argument("folder", type=Path)
    output = parser.parse_args()
    if (why := missing()) is not None:
        print(why, file=sys.stderr)
        return 2
    (start if output.what == "start" else stop)(output.folder.absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main())
