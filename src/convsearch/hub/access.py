"""The hub's client: imported late, its token from the environment alone, its errors in words."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from convsearch.errors import DependencyError, HubError, install_command
from convsearch.network.clients import check_environment

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLE = "HF_TOKEN"


def hub_token() -> str | None:
    """The token in HF_TOKEN; a login that the hub's own program stored is not used."""
    return os.environ.get(TOKEN_VARIABLE, "").strip() or None


def open_hub(endpoint: str | None = None) -> "HfApi":
    """A client. endpoint: another address than HF_ENDPOINT or the public one.

    Raises DependencyError where huggingface_hub is not installed, ConfigError for a proxy of the
    environment that cannot be used.
    """
    check_environment()
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise DependencyError(
            f"huggingface_hub is not installed; run {install_command('infer')}"
        ) from None
    return HfApi(endpoint=endpoint, token=hub_token() or False)


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turns what the client raises into HubError that says what to do."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise HubError(
            f"{repo_id}: its licence must be accepted: open the page of the repository on the hub, "
            f"accept, and set {TOKEN_VARIABLE} to a token of that account"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(
            f"{repo_id}: the pinned revision is not on the hub; remove its entry from the lock "
            "file to take the newest one"
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{repo_id}: no such repository, or a private one; check the name, or set "
            f"{TOKEN_VARIABLE} to a token that may see it"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise HubError(
            f"{repo_id}: HF_HUB_OFFLINE is set, so nothing is asked of the hub; unset it, or copy "
            "folder and lock file from a machine that has them"
        ) from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        refused = code in (401, 403)
        advice = f"check the rights of {TOKEN_VARIABLE}" if refused else "try again later"
        raise HubError(f"{repo_id}: the hub answered {code}; {advice}") from None
    except ValueError as error:  # a name or metadata that cannot be
        raise HubError(f"{repo_id}: refused: {' '.join(str(error).split())[:300]}") from None
    except (httpx.TransportError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise HubError(
            f"{repo_id}: the hub cannot be reached ({_short(error)}); without a network, run the "
            "same command where there is one and copy its folder with the lock file here"
        ) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise HubError(
            f"{repo_id}: the disk is full; make room and run the command again, it goes on where "
            "it was"
        ) from None


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
