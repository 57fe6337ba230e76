import os
import socket
import subprocess
import threading
from pathlib import Path

import psutil
import pytest
import requests

from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.served import COMMAND, served, workers_of
from clickstream_assets_tests.databases import environment


def test_command_serves_and_stops(settings: Settings, tmp_path: Path) -> None:
    with served(settings, TMPDIR=str(tmp_path)) as api:
        assert requests.get(f"{api.address}/health/ready", timeout=10).json()["status"] == "ready"
        answer = requests.get(f"{api.address}/api/recommend/a%2F%2Fb?n=1", timeout=10)
        assert answer.json()["user_id"] == "a//b"
        assert api.wait_for(r'"route":"/api/recommend/<any_text:user_id>"')

        workers = workers_of(api.process.pid, 2)
        api.process.terminate()
        assert api.process.wait(timeout=30) == 0
        assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_many_clients_are_answered_at_once(settings: Settings) -> None:
    with served(settings) as api:
        statuses: list[int] = []

        def ask(client: int) -> None:
            with requests.Session() as session:
                for user in range(20):
                    answer = session.get(f"{api.address}/api/recommend/{client}-{user}", timeout=30)
                    statuses.append(answer.status_code)

        threads = [threading.Thread(target=ask, args=[client]) for client in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 160

        counted = (
            'clickstream_api_request_seconds_count{method="GET",route="/api/recommend/<any_text:user_id>",'
            'status="200"} 160.0'
        )
        assert counted in requests.get(f"{api.address}/metrics", timeout=10).text
        for worker in workers_of(api.process.pid, 2):
            worker.kill()
            worker.wait()
        workers_of(api.process.pid, 2)
        assert counted in requests.get(f"{api.address}/metrics", timeout=30).text


def test_taken_port_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = subprocess.run(
            [*COMMAND, "--port", str(port)],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert failed.returncode == 1
    assert f"API_PORT={port}" in failed.stderr
    assert f"Address already in use by process {os.getpid()} (" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_more_connections_than_files_are_refused_by_name() -> None:
    failed = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -n 300; exec {COMMAND[0]} api --port 0"],
        env=environment(Settings(_env_file=None)) | {"API_CONNECTIONS": "250"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode == 1
    assert "API_CONNECTIONS=250 is more than a process may have here: of the 300 files" in failed.stderr
    assert "set API_CONNECTIONS to 200 or less" in failed.stderr
    assert "Traceback" not in failed.stderr
