"""The settings in the chart's schema, and the pattern of its topics, made from settings.py.

`python -m clickstream_assets_tests.deploy.chart_settings` writes them into helm/values.schema.json; a test holds the
file against this.
"""

from __future__ import annotations

import json
import re
from typing import Any

from clickstream_assets.settings import EventDialect, Settings, secret_names
from clickstream_assets_tests.deploy.files import ROOT

SCHEMA = ROOT / "helm" / "values.schema.json"
# Those that the chart sets itself, from values of other names or as its pods are made …
SET_BY_THE_CHART = {
    *("API_HOST", "API_PORT", "CHECKPOINT_PATH", "CLICKSTREAM_HOME", "DAGSTER_HOME", "ELASTICSEARCH_URL"),
    *("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "LAKE_PATH", "STREAM_HEARTBEAT_PATH"),
    *("DAGSTER_POSTGRES_DB", "POSTGRES_DB", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER"),
    *("SPARK_CONFIG", "SPARK_DRIVER_HOST", "SPARK_MASTER", "SPARK_REMOTE"),
}
# … those of the image, and those that are of no use in a pod: daily files are not written, a driver listens where it is
# reached, and there is no demo.
NOT_OFFERED = {"DAGSTER_PORT", "JARS_PATH", "JAVA_HOME", "RAW_LOGS_PATH", "SPARK_DRIVER_BIND_ADDRESS"}

_INTERVAL = r"^([0-9]+(\.[0-9]+)?\s*(millisecond|second|minute|hour|day|week)s?\s*)+$"
_DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_KEPT = ("type", "enum", "pattern", "minLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def setting_rules() -> dict[str, dict[str, Any]]:
    """The JSON schema of each setting that values may set, by its variable."""
    schema = Settings.model_json_schema()
    rules: dict[str, dict[str, Any]] = {}
    for field, described in schema["properties"].items():
        kind = next((kind for kind in described.get("anyOf", []) if kind.get("type") != "null"), described)
        if "$ref" in kind:
            kind = schema["$defs"][kind["$ref"].rpartition("/")[2]]
        if kind.get("format") == "password" or field.upper() in SET_BY_THE_CHART | NOT_OFFERED:
            continue
        rule = {name: kind[name] for name in _KEPT if name in kind}
        if kind.get("format") in ("duration", "date"):
            rule["pattern"] = _INTERVAL if kind["format"] == "duration" else _DAY
        rules[field.upper()] = rule
    rules |= {f"{name}_FILE": {"type": "string", "pattern": "^/"} for name in secret_settings()}
    return dict(sorted(rules.items()))


def secret_settings() -> set[str]:
    """The settings that are passwords or keys."""
    return {name.upper() for name in secret_names(Settings)}


def generated() -> str:
    """The schema's text, with the settings as settings.py has them now."""
    rules = ",\n".join(f'        "{name}": {json.dumps(rule)}' for name, rule in setting_rules().items())
    names = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in secret_settings()}
    text = SCHEMA.read_text()
    text = re.sub(
        r'("settings": \{.*?"properties": \{\n).*?(\n      \}\n)',
        lambda found: found[1] + rules + found[2],
        text,
        count=1,
        flags=re.DOTALL,
    )
    text = re.sub(
        r'("settingName": )\{.*\}',
        lambda found: f'{found[1]}{{"enum": {json.dumps(sorted(names))}}}',
        text,
        count=1,
    )
    topic = f"[a-zA-Z0-9._-]{{1,249}}(=({'|'.join(EventDialect)}))?"
    rule = json.dumps({"type": "string", "pattern": f"^{topic}(,{topic})*$"})
    return re.sub(r'("topic": )\{.*\}', lambda found: found[1] + rule, text, count=1)


if __name__ == "__main__":
    SCHEMA.write_text(generated())
