"""A real SLURM of one node, of Debian's packages, on this machine: a controller and a node daemon of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.flow import Workflow

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MinJobAge=600
KillWait={kill_wait}
SlurmdTimeout=15
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,defer
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# after each look that finds no job ended, the executor waits ten seconds more until the next (1, 11, 21 …), which for jobs
# of seconds is most of the time: here a look at a workflow's jobs is answered as soon as one has ended
PATIENT_SQUEUE = """\
#!/bin/sh
case "$*" in *--name*) ;; *) exec {squeue} "$@" ;; esac
for try in $(seq 150); do
    jobs=$({squeue} "$@") || exit
    ended=$(echo "$jobs" | grep -v -e PENDING -e RUNNING -e COMPLETING)
    [ "$ended" = "$(cat {told} 2>/dev/null)" ] && [ "$ended" != "$jobs" ] || break
    sleep 0.2
done
echo "$ended" >{told}
echo "$jobs"
"""


def missing() -> str | None:
    """Why no SLURM can be started here, or None."""
    found = [shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in PROGRAMS]
    if not all(found):
        return "SLURM is not installed (.ci/install-packages does it on Debian)"
    return "SLURM's daemons need root" if os.geteuid() else None


class Slurm:
    """Started on construction, its files below ``folder``; ``environment`` lets its commands find it."""

    def __init__(self, folder: Path, cpus: int = 4, kill_wait: int = 30):
        self.folder, self.processes = folder, []
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        ports = [_free_port(), _free_port()]
        text = CONFIGURATION.format(folder=folder, host=host, ports=ports, cpus=cpus, kill_wait=kill_wait)
        (folder / "slurm.conf").write_text(text)
        self.host = host
        path = f"{folder / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        # the executor clears SLURM's variables before its srun, which a configuration in /etc would not need
        srun = f'#!/bin/sh\nSLURM_CONF={folder / "slurm.conf"} exec {shutil.which("srun")} "$@"\n'
        squeue = PATIENT_SQUEUE.format(squeue=shutil.which("squeue"), told=folder / "told")
        for name, script in (("srun", srun), ("squeue", squeue)):
            (folder / "bin" / name).write_text(script)
            (folder / "bin" / name).chmod(0o755)
        paths = [
            f"--{name}={folder}/munge.{end}"
            for name, end in (
                ("socket", "socket"),
                ("key-file", "key"),
                ("pid-file", "pid"),
                ("log-file", "log"),
                ("seed-file", "seed"),
            )
        ]
        self._start("munged", "--foreground", "--force", *paths)
        self._wait(lambda: (folder / "munge.socket").exists(), "munged")
        self._start("slurmctld", "-D", "-c")
        self._start("slurmd", "-D", "-N", host)
        self._wait(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T"), "slurmctld and slurmd")

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)
        return done.stdout + done.stderr

    def jobs(self) -> list[tuple[str, str, str]]:
        """(id, state, comment) of every job that SLURM remembers; Snakemake's comment names the rule."""
        lines = self.run("squeue", "--noheader", "--states=all", "--format=%i|%T|%k").splitlines()
        return [tuple(line.split("|", 2)) for line in lines if line.count("|") >= 2]

    def reboot(self) -> None:
        """The node daemon and all its jobs die at once; the daemon comes back as that of a node that has been rebooted."""
        daemon = next(process for process in self.processes if process.args[0].endswith("/slurmd"))
        for pid in [daemon.pid, *(pid for pid, _, _ in self._below())]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        self.processes.remove(daemon)
        self._start("slurmd", "-D", "-b", "-N", self.host)

    def halt(self, job: str) -> None:
        """The processes of a job stand still; what watches over them does not."""
        for pid, environment, watches in self._below():
            if f"SLURM_JOB_ID={job}" in environment and not watches:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)

    def _below(self) -> Iterator[tuple[int, list[str], bool]]:
        """(pid, environment, whether it watches over others) of the processes of this SLURM's jobs."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = folder.joinpath("environ").read_bytes().decode(errors="replace").split("\0")
                watches = folder.joinpath("comm").read_text().startswith("slurmstepd")
                of_job = any(value.startswith("SLURM_JOB_ID=") for value in environment)
                if f"SLURM_CONF={self.environment['SLURM_CONF']}" in environment and (of_job or watches):
                    yield int(folder.name), environment, watches

    def stop(self) -> None:
        self.run("scancel", "--user=root", "--full")
        deadline = time.monotonic() + 10
        while self.run("squeue", "--noheader").strip() and time.monotonic() < deadline:
            time.sleep(0.2)  # a job must not outlive its daemons
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, *command: str) -> None:
        environment = os.environ | self.environment
        program = shutil.which(command[0], path=environment["PATH"])
        with open(self.folder / f"{command[0]}.out", "w") as log:
            self.processes.append(
                subprocess.Popen([program, *command[1:]], env=environment, stdout=log, stderr=subprocess.STDOUT)
            )

    def _wait(self, ready, who: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in self.folder.glob("*.out"))
                self.stop()
                raise RuntimeError(f"{who} did not start within {seconds} s\n{logs}")
            time.sleep(0.2)


class Cluster(Workflow):
    """Jobs go through SLURM, under the repository's own profile."""

    def __init__(self, folder: Path, slurm: Slurm):
        super().__init__(folder)
        self.slurm = slurm

    def command(self, config: Path | str, *options: str) -> list[str]:
        local = super().command(config, *options)
        where = [part.replace("profiles/default", "profiles/slurm") for part in local]
        where[where.index("--cores") : where.index("--cores") + 2] = []
        quick = ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
        alone = ["--slurm-status-command", "squeue", "--slurm-no-account", "--latency-wait", "10"]
        return [*where[:3], *quick, *alone, *where[3:]]

    def environment(self) -> dict[str, str]:
        return super().environment() | self.slurm.environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
