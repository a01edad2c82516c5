"""A model of the hub is asked for once, quickly, before anything loads it.

The hub's client tries again for a minute, with a line for each try, where there is no network; and
a name that was mistyped is no reason to ask it at all (`check_model`).
"""

from pathlib import Path

from convsearch.errors import CheckpointError
from convsearch.network.clients import check_environment

ANSWER_S = 5.0
"""Time for the hub to answer."""


def find_model(model: str) -> str:
    """What to load: the folder or hub name as it is, or, where the hub cannot be reached, the copy
    that an earlier download has left. Raises CheckpointError where there is none, ConfigError for
    a proxy of the environment that cannot be used."""
    if Path(model).exists():
        return model
    check_environment()
    import httpx
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        HfApi().model_info(model, timeout=ANSWER_S)
    except (httpx.TransportError, errors.OfflineModeIsEnabled) as error:
        try:
            return snapshot_download(model, local_files_only=True)
        except (errors.LocalEntryNotFoundError, errors.HFValidationError):
            pass
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        why = "HF_HUB_OFFLINE is set" if offline else str(error) or type(error).__name__
        raise CheckpointError(
            f"{model}: no such folder, and the hub cannot be asked for it ({why}); check the name, "
            "or download the model where there is a network and name its folder"
        ) from None
    except (errors.HfHubHTTPError, errors.HFValidationError, ValueError):
        return model  # what the hub refuses, the loader says in its own words
    return model
