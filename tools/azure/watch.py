"""A job of Azure ML, watched until it ends."""

import json
import logging
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import AzureError, HttpResponseError

from tunepress.core.errors import InputError
from tunepress.remote.workspace import NO_ANSWER, error_message

logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)  # it says of a dozen of its own classes that they are experimental

COMPLETED = "Completed"


def watch(client: MLClient, name: str, cancel_on_interrupt: bool) -> int:
    """Streams a job's status and logs; Ctrl-C ends the watching.

    Args:
        client: of the workspace.
        name: of the job.
        cancel_on_interrupt: whether Ctrl-C cancels the job too.

    Returns:
        The exit status of a command that did what the job did: 0 where it completed.

    Raises:
        InputError: Azure no longer answers.
    """
    try:
        client.jobs.stream(name)
        status = client.jobs.get(name).status
        print(f"job {name}: {getattr(status, 'value', status).lower()}")  # a word that the SDK does not know stays one
        return 0 if status == COMPLETED else 1
    except KeyboardInterrupt:
        return leave(client, name, cancel_on_interrupt)
    except JobException as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # the SDK makes this of Ctrl-C
            return leave(client, name, cancel_on_interrupt)
        print(f"job {name}: failed: {reason(error)}")
        return 1
    except AzureError as error:
        if not broken_off(error):
            raise
        raise InputError(
            f"job {name}: {error_message(error)}; it may run on, `make azure-fetch JOB={name}` waits for it"
        ) from error


def leave(client: MLClient, name: str, cancel: bool) -> int:
    """Ends the watching, and the job where that is wanted."""
    if cancel:
        client.jobs.begin_cancel(name).result()
        print(f"job {name}: canceled")
    else:
        print(f"job {name}: runs on; `make azure-fetch JOB={name}` waits for it, `az ml job cancel --name {name}` ends it")
    return 1


def broken_off(error: AzureError) -> bool:
    """Whether Azure gave no answer, or that it is in trouble itself."""
    return isinstance(error, NO_ANSWER) or (isinstance(error, HttpResponseError) and (error.status_code or 500) >= 500)


def reason(error: JobException) -> str:
    """What Azure ML says, without the JSON around it."""
    said = str(error.message)
    try:
        details: Any = json.loads(said[said.index("{") : said.rindex("}") + 1])
        return str(details["error"]["message"]).strip().splitlines()[0]
    except (ValueError, LookupError, TypeError):
        return said.strip().splitlines()[-1]
