"""Watches a job of Azure ML until it ends."""

import json
import logging
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import AzureError, HttpResponseError

from tunepress.core.errors import InputError
from tunepress.remote.workspace import NO_ANSWER, error_message

logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)  # it warns that a dozen of its own classes are experimental

COMPLETED = "Completed"


def watch(client: MLClient, name: str, cancel_on_interrupt: bool) -> int:
    """Streams a job's status and logs; Ctrl-C stops watching.

    Args:
        client: of the workspace.
        name: of the job.
        cancel_on_interrupt: whether Ctrl-C also cancels the job.

    Returns:
        The exit status: 0 if the job completed, otherwise 1.

    Raises:
        InputError: Azure no longer answers.
    """
    try:
        client.jobs.stream(name)
        status = client.jobs.get(name).status
        print(f"job {name}: {getattr(status, 'value', status).lower()}")  # a str if the SDK does not know it
        return 0 if status == COMPLETED else 1
    except KeyboardInterrupt:
        return leave(client, name, cancel_on_interrupt)
    except JobException as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # raised by the SDK for Ctrl-C
            return leave(client, name, cancel_on_interrupt)
        print(f"job {name}: failed: {reason(error)}")
        return 1
    except AzureError as error:
        if not is_unavailable(error):
            raise
        raise InputError(
            f"job {name}: {error_message(error)}; it may still be running; `make azure-fetch JOB={name}` waits for it"
        ) from error


def leave(client: MLClient, name: str, cancel: bool) -> int:
    """Cancels the job if requested, otherwise prints how to continue; returns the exit status."""
    if cancel:
        client.jobs.begin_cancel(name).result()
        print(f"job {name}: canceled")
    else:
        cures = f"`make azure-fetch JOB={name}` waits for it, `az ml job cancel --name {name}` cancels it"
        print(f"job {name}: is still running; {cures}")
    return 1


def is_unavailable(error: AzureError) -> bool:
    """Whether Azure did not answer, or answered with a server error."""
    return isinstance(error, NO_ANSWER) or (isinstance(error, HttpResponseError) and (error.status_code or 500) >= 500)


def reason(error: JobException) -> str:
    """Azure ML's message without the JSON around it."""
    message = str(error.message)
    try:
        details: Any = json.loads(message[message.index("{") : message.rindex("}") + 1])
        return str(details["error"]["message"]).strip().splitlines()[0]
    except (ValueError, LookupError, TypeError):
        return message.strip().splitlines()[-1]
