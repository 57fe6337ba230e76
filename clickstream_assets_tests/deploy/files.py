"""The files that a deployment is made of, as Docker and Compose read them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clickstream_assets.local.postgres import installed_programs
from clickstream_assets.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
OUR_IMAGE = "clickstream-assets"
PASSWORDS = {
    "DATABASE_ADMIN_PASSWORD": "administrators",
    "DATABASE_PASSWORD": "owners",
    "DATABASE_API_PASSWORD": "apis",
    "DATABASE_PIPELINE_PASSWORD": "pipelines",
    "DATABASE_DAGSTER_PASSWORD": "dagsters",
    "CLUSTER_SECRET": "sparks",
    "WEBSERVER_PASSWORD": "a login",
}

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?+])(?P<text>[^}]*))?\})")
_INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def compose_variables() -> dict[str, str | None]:
    """The variables that the Compose file asks for, and their defaults."""
    text = COMPOSE_FILE.read_text()
    found = _VARIABLE.finditer(text)
    return {
        match["name"]: match["text"] if match["kind"] == "-" else None
        for match in found
        if match["name"] and match["kind"] != "+"
    } | {secret["environment"]: None for secret in yaml.safe_load(text)["secrets"].values()}


def compose_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """The secrets of the Compose file by their names, of which each is a file in a container that has it."""
    secrets = yaml.safe_load(COMPOSE_FILE.read_text())["secrets"]
    return {name: variables[secret["environment"]] for name, secret in secrets.items()}


SECRETS_FOLDER = "/run/secrets"
"""Where Compose puts them."""


def compose_services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services of the Compose file, with what the variables stand for."""

    def value(match: re.Match[str]) -> str:
        if not match["name"]:
            return "$"
        if match["kind"] == "-":
            return variables.get(match["name"]) or match["text"]
        if match["kind"] == "+":
            return match["text"] if variables.get(match["name"]) else ""
        return variables[match["name"]]

    def filled_in(node: Any) -> Any:
        match node:
            case dict():
                return {key: filled_in(item) for key, item in node.items()}
            case list():
                return [filled_in(item) for item in node]
            case str():
                return _VARIABLE.sub(value, node)
        return node

    return filled_in(yaml.safe_load(COMPOSE_FILE.read_text())["services"])


def is_ours(service: Mapping[str, Any]) -> bool:
    """Return whether a container of it runs our image."""
    return service["image"].startswith(f"{OUR_IMAGE}:")


def command_of(service: Mapping[str, Any]) -> list[str]:
    """What a container runs."""
    return [*service.get("entrypoint", []), *service["command"]]


def is_long_running(service: Mapping[str, Any]) -> bool:
    """Return whether it is to run for ever, and not once."""
    return service["restart"] != "no"


@cache
def dockerfile_instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order: name and arguments, on one line."""
    return [
        (name, arguments.replace("\\\n", " "))
        for name, arguments in _INSTRUCTION.findall(DOCKERFILE.read_text())
    ]


def image_environment() -> dict[str, str]:
    """The variables that the image sets, from all of its stages."""
    pairs = [
        pair for name, arguments in dockerfile_instructions() if name == "ENV" for pair in arguments.split()
    ]
    return dict(pair.split("=", 1) for pair in pairs)


def java_options(options: str) -> dict[str, str]:
    """The system properties that a variable such as SPARK_WORKER_OPTS gives Java."""
    return dict(word.removeprefix("-D").split("=", 1) for word in options.split())


def make_env(file: Path) -> subprocess.CompletedProcess[str]:
    """Run the script that makes the passwords."""
    return subprocess.run(
        ["sh", ROOT / "deploy" / "make_env.sh", file], capture_output=True, text=True, check=False
    )


def make_databases(server: Settings, password: str, folder: Path) -> None:
    """Have the script of PostgreSQL's container make the databases in a server that has none of ours.

    Args:
        server: its superuser's login.
        password: of the owner.
        folder: for the file that the password is in.
    """
    file = folder / "database_password"
    file.write_text(f"{password}\n")
    programs = installed_programs()
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "POSTGRES_USER": server.postgres_user,
        "PGHOST": server.postgres_host,
        "PGPORT": str(server.postgres_port),
        "PGPASSWORD": server.postgres_password.get_secret_value(),
        "DATABASE_PASSWORD_FILE": str(file),
    }
    dropped = [str(programs / "dropdb"), "--if-exists", f"--username={server.postgres_user}", "clickstream"]
    subprocess.run(dropped, env=environment, check=True)
    subprocess.run(["sh", ROOT / "deploy" / "postgres" / "databases.sh"], env=environment, check=True)


SERVICES = compose_services(PASSWORDS)
OURS = [name for name, service in SERVICES.items() if is_ours(service)]
