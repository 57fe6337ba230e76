"""The file of experiments that EXPERIMENTS names."""

from __future__ import annotations

from clickstream_assets.errors import InputError
from clickstream_assets.recommender.experiments import Experiment, parse_experiments
from clickstream_assets.settings import Settings


def declared_experiments(settings: Settings) -> tuple[Experiment, ...]:
    """Read the experiments that are declared, in order; none where EXPERIMENTS is not set.

    Raises:
        InputError: the file cannot be read, or what it declares cannot be used; the message says what to do.
    """
    path = settings.experiments
    if path is None:
        return ()
    source = f"EXPERIMENTS={path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{source}: {error.strerror or error}; set it to a TOML file that this user may read"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    return parse_experiments(text, source)
