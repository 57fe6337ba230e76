"""`clickstream api`."""

from typing import Annotated, Any

import typer

from clickstream_assets.settings import load_settings


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: API_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any (default: API_PORT).")
    ] = None,
) -> None:
    """Serve the REST API until it is stopped."""
    # Not needed, and not waited for, by the other commands of the command line.
    from clickstream_assets.api.server import serve

    given: dict[str, Any] = {"api_host": host, "api_port": port}
    serve(load_settings().model_copy(update={k: v for k, v in given.items() if v is not None}))
