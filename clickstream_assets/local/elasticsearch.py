"""Elasticsearch: one node, without security, on loopback."""

import http.client
import json

from clickstream_assets.local.ports import LOOPBACK, accepts_connections
from clickstream_assets.local.server import Server, Tools

# Without AlwaysPreTouch, C2 and G1 the node is up in 5.4 s instead of 7.2 s (2 cores, measured).
JVM_OPTIONS = """\
-Xms512m
-Xmx512m
-Xshare:auto
-XX:TieredStopAtLevel=1
-XX:+UseSerialGC
-XX:-AlwaysPreTouch
-XX:-UsePerfData
-XX:+ExitOnOutOfMemoryError
-Djava.io.tmpdir=${ES_TMPDIR}
"""
LAUNCHER_OPTIONS = "-Xshare:auto -XX:TieredStopAtLevel=1 -XX:-UsePerfData"
LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class Elasticsearch(Server):
    """The search server.

    It is started by its own launcher, a small JVM that stays its parent and passes a SIGTERM on; if the
    launcher dies, so does the node. Starting the node without it would save a second, and take a binary
    message on its standard input that every release may change.
    """

    name = "elasticsearch"
    title = "Elasticsearch"

    def prepare(self, tools: Tools) -> None:
        """See the base class."""
        for name in ("config", "data", "logs", "tmp"):
            self.make_folder(name, tools.identity)
        settings = {
            "cluster.name": "clickstream",
            "node.name": "local",
            "discovery.type": "single-node",
            "network.host": LOOPBACK,
            "http.port": self.port,
            # Nobody connects to it; any free one, so that two homes do not meet.
            "transport.port": 0,
            "path.data": str(self.folder / "data"),
            "path.logs": str(self.folder / "logs"),
            "xpack.security.enabled": False,
            # Otherwise a disk that is 95 % full makes every index read-only.
            "cluster.routing.allocation.disk.threshold_enabled": False,
        }
        # A JSON value is a YAML value, with the quoting done.
        lines = (f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
        self.write("config/elasticsearch.yml", "".join(lines), tools.identity)
        self.write("config/jvm.options", JVM_OPTIONS, tools.identity)
        self.write("config/log4j2.properties", LOGGING, tools.identity)

    def command(self, tools: Tools) -> list[str]:
        """See the base class."""
        variables = {
            "ES_JAVA_HOME": tools.java.parent.parent,
            "ES_PATH_CONF": self.folder / "config",
            "ES_TMPDIR": self.folder / "tmp",
            "ES_JAVA_OPTS": "",
            "CLI_JAVA_OPTS": LAUNCHER_OPTIONS,
        }
        launcher = tools.elasticsearch_home / "bin" / "elasticsearch"
        return ["env", *(f"{name}={value}" for name, value in variables.items()), str(launcher)]

    def problem(self) -> str | None:
        """See the base class."""
        if not accepts_connections(self.port):
            return f"nothing answers on port {self.port} yet"
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            # This build answers 405 to GET /.
            connection.request("GET", "/_cluster/health")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"it does not answer: {error!r}"
        finally:
            connection.close()
        if answer.status != 200:
            return f"its health is HTTP {answer.status}"
        # Yellow is healthy: replicas have nowhere to go on one node. Red is an index that is not loaded yet.
        status = json.loads(body)["status"]
        return None if status in ("green", "yellow") else f"its health is {status}"
