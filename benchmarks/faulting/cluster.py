"""A Ray cluster of several nodes on this machine, any process of which can be killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

STARTS = 5
"""How often a head may fail to start."""
STOPS_IN = 20.0
"""Seconds that a node gets to stop by itself."""
HEAD_ID = "f" * 51 + "0" * 5
"""Node id of the head, as the autoscaler's provider for tests expects it."""
UNUSED_LISTS = (
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "initialization_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
)
"""Of the autoscaler's settings, which it does not do without."""
NODE_CPUS = 2
HEAD_STORE, NODE_STORE = 200_000_000, 150_000_000
"""Bytes of object stores."""


def free_port() -> int:
    """A port of the loopback device that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Node:
    """One ``ray start --block``; all its processes are those of one session of the system.

    Args:
        arguments: of ``ray start``.
        environment: of all processes of the node.
        log: gets what they print.
    """

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        ports = ["dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
        command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--{name}={free_port()}" for name in ports]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=dict(environment), stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def starts(self) -> bool:
        """Whether it has started; returns when that is known."""
        while self.process.poll() is None:
            if "Ray runtime started" in self.log.read_text():
                return True
            time.sleep(0.1)
        return False

    def processes(self) -> dict[int, str]:
        """Title of every process of the node, by its id."""
        return processes_of_sessions({self.process.pid})

    def kill(self) -> int:
        """Kill -9 all processes of the node, as when a machine loses its power; returns how many.

        What they start meanwhile dies as well.
        """
        killed: set[int] = set()
        while living := self.processes():
            for pid in living:
                kill(pid)
            killed |= set(living)
            self.process.poll()
            time.sleep(0.02)
        self.process.wait()
        return len(killed)

    def stop(self) -> None:
        """End the node properly, or by force where it takes too long."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOPS_IN)
        self.kill()


def start_head(
    folder: Path, environment: Mapping[str, str], further: Callable[[str], list[str]]
) -> tuple[str, Node]:
    """A head without CPUs that runs, with its address, from which ``further`` makes arguments.

    Ray gives a node half a minute to start, which a busy machine may exceed.
    """
    for attempt in range(STARTS):
        port = free_port()
        address = f"127.0.0.1:{port}"
        arguments = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        arguments += [
            f"--temp-dir={folder}",
            f"--object-store-memory={HEAD_STORE}",
            *further(address),
        ]
        node = Node(arguments, environment, folder / f"head-{attempt}.log")
        if node.starts():
            return address, node
        node.kill()
    raise RuntimeError(f"Ray's head did not start; see {folder}")


def processes_of_sessions(sessions: Set[int]) -> dict[int, str]:
    """Title of every living process of some sessions of the system, by its id."""
    processes = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) in sessions and fields[0] != "Z":
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                processes[int(folder.name)] = title.decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return processes


def kill(pid: int) -> None:
    """Kill -9, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class ElasticHead:
    """A head without CPUs, whose autoscaler starts worker nodes on this machine and ends them.

    Must run in a process namespace that dies with it: its nodes are not its children.

    Args:
        folder: for Ray's files and logs.
        environment: of all nodes.
        nodes: worker nodes at most.
        idle: seconds after which an idle one is ended.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], nodes: int, idle: float
    ) -> None:
        worker = {"CPU": NODE_CPUS, "object_store_memory": NODE_STORE}
        config: dict[str, Any] = {
            **{key: [] for key in UNUSED_LISTS},
            "auth": {},
            "file_mounts": {},
            "cluster_name": "elastic",
            "max_workers": nodes,
            "idle_timeout_minutes": idle / 60,
            "upscaling_speed": 1.0,
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider"
                ".FakeMultiNodeProvider",
                "disable_launch_config_check": True,
                "disable_node_updaters": True,
                "launch_multiple": True,
                "head_node_id": HEAD_ID,
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": worker,
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": nodes,
                },
            },
        }
        folder.mkdir(parents=True)
        path = folder / "autoscaling.json"

        def further(address: str) -> list[str]:
            config["provider"]["gcs_address"] = address
            path.write_text(json.dumps(config))
            return [f"--autoscaling-config={path}"]

        autoscaler = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_FAKE_CLUSTER": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "RAY_enable_autoscaler_v2": "1",
        }
        self.address, self.node = start_head(folder, {**environment, **autoscaler}, further)


class Cluster:
    """A head without CPUs, on which drivers run, and worker nodes of ``NODE_CPUS`` each.

    A worker node that ends, whatever the reason, is replaced by another at once.

    Args:
        folder: for Ray's files and logs; its path must be short, for the sake of sockets.
        environment: of all nodes.
        nodes: how many workers.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], nodes: int) -> None:
        self.folder = folder
        self.environment = environment
        folder.mkdir(parents=True)
        self.address, self.head = start_head(folder, environment, lambda address: [])
        self.nodes: list[Node] = []
        self._count = 0
        self._ends = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        for _ in range(nodes):
            self.grow()

    def grow(self) -> None:
        """Start one more worker node; returns when it runs."""
        place = len(self.nodes)
        self.nodes.append(self._new())
        while not self.nodes[place].starts():
            time.sleep(1.0)

    def shrink(self) -> None:
        """Kill the youngest worker node for good."""
        self.nodes.pop().kill()

    def _new(self) -> Node:
        self._count += 1
        arguments = [f"--address={self.address}", f"--num-cpus={NODE_CPUS}"]
        arguments += [f"--object-store-memory={NODE_STORE}"]
        return Node(arguments, self.environment, self.folder / f"node-{self._count}.log")

    def _keep(self) -> None:
        while not self._ends.wait(0.2):
            for node in list(self.nodes):
                if node.process.poll() is not None and node in self.nodes:
                    node.kill()
                    self.nodes[self.nodes.index(node)] = self._new()

    def workers(self) -> dict[int, str]:
        """Title of every process of the worker nodes, by its id."""
        return processes_of_sessions({node.process.pid for node in self.nodes})

    def stop(self) -> None:
        """End all nodes."""
        self._ends.set()
        self._keeper.join()
        for node in (*self.nodes, self.head):
            node.stop()
