"""Containers of the image itself, by Podman, with all that the Compose file says of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clickstream_assets_tests.deploy.containers import Containers
from clickstream_assets_tests.deploy.files import ROOT, SECRETS_FOLDER, command_of

NETWORK = "clickstream"
CONTROL_GROUP = "CLICKSTREAM_TEST_CONTROL_GROUP"
"""Variable that names the control group of all containers; it is set where there is an image to test."""
# For documentation alone (RFC 5737), so it is no machine's that a container could mean.
SERVERS_ADDRESS = "192.0.2.1"


def podman(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run Podman, on the store that the environment names."""
    return subprocess.run(
        ["podman", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def podman_says(*arguments: str) -> str:
    """Return what Podman prints.

    Raises:
        AssertionError: with its reason, if it fails.
    """
    done = podman(*arguments)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


class PodmanContainers(Containers):
    """Services of the Compose file that run our image.

    Each replica is a container, called by the service and a number. On networks of their own, the containers find each
    other by the services' names, and the servers, which are no containers here, at SERVERS_ADDRESS.

    Args:
        services: all of them by name, with their variables filled in.
        servers: names of those that are no containers.
        configs: the file of each of the Compose file's configs.
        secrets: a folder with a file of each of its secrets.
    """

    def __init__(
        self,
        services: Mapping[str, dict[str, Any]],
        servers: Iterable[str],
        configs: Mapping[str, str],
        secrets: Path,
    ) -> None:
        super().__init__(services, servers)
        self._secrets = secrets
        self._servers = list(servers)
        self._configs = configs
        for network in self._networks():
            podman_says("network", "create", network)

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """See the base class. Of several replicas it is the first that fails, else the last."""
        for container in self.replicas(name):
            done = podman("exec", container, *command)
            if done.returncode:
                break
        return done

    def folder(self, path: str) -> Path:
        """See the base class."""
        mounts = {mount for service in self._services.values() for mount in service.get("volumes", [])}
        (volume,) = {mount.split(":")[0] for mount in mounts if mount.endswith(f":{path}")}
        return Path(podman_says("volume", "inspect", volume, "--format", "{{.Mountpoint}}"))

    def stop(self, name: str) -> int:
        """See the base class. Of several replicas it is the highest code."""
        podman_says("stop", *self.replicas(name))
        return max(self.state(container)["ExitCode"] for container in self.replicas(name))

    def replicas(self, name: str) -> list[str]:
        """The names of a service's containers."""
        count = self._services[name]["deploy"].get("replicas", 1)
        return [f"{name}-{number}" for number in range(1, count + 1)]

    def state(self, container: str) -> dict[str, Any]:
        """Podman's account of a container: its `Status`, `ExitCode`, and more."""
        return json.loads(podman_says("container", "inspect", container, "--format", "{{json .State}}"))

    def restarts(self, container: str) -> int:
        """Return how often a container was started again."""
        return int(podman_says("container", "inspect", container, "--format", "{{.RestartCount}}"))

    def _start(self, name: str) -> None:
        service = self._services[name]
        for container in self.replicas(name):
            if podman("container", "exists", container).returncode == 0:
                podman_says("start", container)
            else:
                options = self._options(name)
                podman_says(
                    "run", "--detach", f"--name={container}", *options, service["image"], *command_of(service)
                )

    def _options(self, name: str) -> list[str]:
        """The options that say what the Compose file says of a service."""
        service = self._services[name]
        limits = service["deploy"]["resources"]["limits"]
        return [
            "--pull=never",
            f"--cgroup-parent={os.environ[CONTROL_GROUP]}",
            *(f"--network={network}:alias={name}" for network in self._networks_of(service)),
            *(f"--add-host={server}:{SERVERS_ADDRESS}" for server in self._servers),
            f"--restart={service['restart']}",
            f"--init={json.dumps(service['init'])}",
            f"--read-only={json.dumps(service.get('read_only', False))}",
            f"--stop-timeout={service['stop_grace_period'].removesuffix('s')}",
            f"--cpus={limits['cpus']}",
            f"--memory={limits['memory']}",
            *(f"--cap-drop={capability}" for capability in service["cap_drop"]),
            *(f"--security-opt={option.replace(':true', '')}" for option in service["security_opt"]),
            *(f"--env={variable}={value}" for variable, value in service.get("environment", {}).items()),
            *(f"--publish={port}" for port in service.get("ports", [])),
            *(f"--tmpfs={path}" for path in service.get("tmpfs", [])),
            *(f"--volume={mount}" for mount in service.get("volumes", [])),
            *(
                f"--volume={(ROOT / self._configs[config['source']]).absolute()}:{config['target']}:ro"
                for config in service["configs"]
            ),
            *(
                f"--volume={self._secrets / secret}:{SECRETS_FOLDER}/{secret}:ro"
                for secret in service.get("secrets", [])
            ),
        ]

    def _exit_code(self, name: str) -> int | None:
        """See the base class. One that was started again has ended before."""
        for container in self.replicas(name):
            state = self.state(container)
            if state["Status"] == "exited" or self.restarts(container):
                return state["ExitCode"]
        return None

    def _log(self, name: str) -> str:
        logs = [podman("logs", container) for container in self.replicas(name)]
        return "\n".join(log.stdout + log.stderr for log in logs)

    def _end(self) -> None:
        podman_says("rm", "--all", "--force", "--volumes", "--time=30")
        podman_says("network", "rm", "--force", *self._networks())

    def _networks(self) -> list[str]:
        return sorted(
            {network for service in self._services.values() for network in self._networks_of(service)}
        )

    @staticmethod
    def _networks_of(service: Mapping[str, Any]) -> list[str]:
        return [f"{NETWORK}-{network}" for network in service.get("networks", ["default"])]
