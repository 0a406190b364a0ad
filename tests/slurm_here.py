"""A real SLURM on this machine: one node, on loopback, and all that it keeps in a folder of the caller's."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

READY_WITHIN = 30.0
ANSWERED_WITHIN = 5.0
STOPPED_WITHIN = 10.0
JOBS_END_WITHIN = 2.0  # once cancelled, when SLURM stops; its own KillWait is 30 s
LONGEST_SOCKET = 107  # bytes of a Unix socket's path
SBIN = ("/usr/local/sbin", "/usr/sbin")  # where the daemons are; not on every user's PATH

CONF = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
# They listen on every address: CommunicationParameters=NoInAddrAny, against that, needs a host's name that resolves.
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits. Less than 5 is invalid, and then it is 120: only the log says so.
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/d
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# The only place for the troubles of a job's own daemon, such as an output file that it cannot open.
SlurmdLogFile={folder}/steps.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
SelectType=select/cons_tres
# Memory is not shared out; a job may ask for as much as the node claims to have.
SelectTypeParameters=CR_CPU
# The node has what its line says, whatever the machine has.
SlurmdParameters=config_overrides
NodeName=here NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000000
PartitionName=here Nodes=here Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path, nodes: int = 2) -> Iterator[dict[str, str]]:
    """A SLURM of its own on loopback; yields the environment that sbatch, squeue, scancel and scontrol need.

    Its partition, "here", is one node that claims ``nodes`` CPUs: so many workers of one CPU each run at once.

    A requeued job starts again six seconds after its end, five of which are cred_expire, below. It takes one second
    with ``scontrol update JobId=... StartTime=now``, once squeue has it as pending; any earlier, that does nothing.
    The end of one that takes long over its SIGTERM is seen some seconds late.

    Time limits, and with them sbatch's --signal, are looked at every half minute: for a signal at once there is
    scancel. There is no accounting: sacct fails, and submitit knows of a job only what is in its files.

    At the end the jobs are cancelled, and killed where that takes long. Raises FileNotFoundError for a program that is
    missing, and RuntimeError, with the ends of the logs, if SLURM does not start.
    """
    folder = folder.absolute()
    if len(os.fsencode(folder / "d" / "here_1000000.4294967291")) > LONGEST_SOCKET:
        raise ValueError(f"too long a path for SLURM's sockets: {folder}")
    munged, slurmctld, slurmd, sinfo, scancel = map(program, ("munged", "slurmctld", "slurmd", "sinfo", "scancel"))
    for each in (folder, folder / "state", folder / "d"):
        each.mkdir(parents=True, exist_ok=True)
    conf, key, munge = folder / "slurm.conf", folder / "munge.key", folder / "munge"
    controller_port, node_port = free_ports(2)
    conf.write_text(
        CONF.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=controller_port,
            node_port=node_port,
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=folder,
            cpus=nodes,
        )
    )
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    environment = {"SLURM_CONF": str(conf)}
    daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(*command: str) -> None:
        name = Path(command[0]).name
        daemons[name] = stack.enter_context(daemon(folder / f"{name}.log", environment, command))

    def is_idle() -> bool:
        return output(environment, sinfo, "--noheader", "--format=%T").strip() == "idle"

    def end_jobs() -> None:
        output(environment, scancel, "--partition=here")
        deadline = time.monotonic() + JOBS_END_WITHIN
        while jobs_processes(conf) and time.monotonic() < deadline:
            time.sleep(0.1)
        kill_jobs(conf)

    with ExitStack() as stack:
        stack.callback(kill_jobs, conf)
        # Forced, as it would have everyone enter the socket's folder, and a temporary folder is its owner's alone.
        own = {"key": key, "pid": folder / "munged.pid", "seed": folder / "munged.seed"}
        options = [f"--{name}-file={path}" for name, path in own.items()]
        start(munged, "--foreground", "--force", f"--socket={munge}", *options)
        wait_until(munge.is_socket, "munged makes its socket", folder, daemons)
        start(slurmctld, "-D", "-f", str(conf))
        start(slurmd, "-D", "-f", str(conf))
        wait_until(is_idle, "the node is idle", folder, daemons)
        stack.callback(end_jobs)
        yield environment


@contextmanager
def daemon(log: Path, environment: dict[str, str], command: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """In the foreground, as a child: it cannot get lost; in a session of its own, away from the terminal's Ctrl-C."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # slurmctld has a child
            process.wait()


def wait_until(ready: Callable[[], bool], what: str, folder: Path, daemons: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not ready():
        ended = [name for name, process in daemons.items() if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            trouble = f"{' and '.join(ended)} ended" if ended else f"not within {READY_WITHIN:g} s"
            logs = [folder / f"{name}.log" for name in daemons]
            ends = ["\n".join([f"{log}:", *log.read_text().splitlines()[-20:]]) for log in logs]
            raise RuntimeError("\n\n".join([f"SLURM does not start: {what}: {trouble}", *ends]))
        time.sleep(0.1)


def output(environment: dict[str, str], *command: str) -> str:
    """What a command prints: nothing if slurmctld, for which it may wait for minutes, does not answer."""
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
            timeout=ANSWERED_WITHIN,
        ).stdout
    return ""


def jobs_processes(conf: Path) -> list[int]:
    """Of all jobs of the SLURM that ``conf`` configures; they are not its daemons' children, and outlive them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # has ended, or is another user's
            its = (process / "environ").read_bytes().split(b"\0")
            is_jobs = any(each.startswith(b"SLURM_JOB_ID=") for each in its)
            is_jobs |= (process / "comm").read_text().startswith("slurmstepd")
            if is_jobs and b"SLURM_CONF=" + os.fsencode(conf) in its:
                found.append(int(process.name))
    return found


def kill_jobs(conf: Path) -> None:
    while found := jobs_processes(conf):  # again and again: they may fork meanwhile
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(SBIN))
    if found is None:
        raise FileNotFoundError(f"SLURM's {name} is not installed")
    return found


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:  # all open at once: else one could come twice
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in bound]
