"""tools/azure/watch and the watching of a transfer in tools/azure/share, against a client and a container that are made up."""

import subprocess
import sys
from typing import Any
from unittest import mock

import pytest
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import HttpResponseError, ServiceRequestError

from tools.azure import share
from tools.azure.watch import watch
from tunepress.core.errors import InputError

FAILED = 'Exception : {"error": {"message": "out of memory\\nat line 5"}}'


def client(status: Any = "Completed", error: BaseException | None = None) -> Any:
    made = mock.Mock()
    made.jobs.stream.side_effect = error
    made.jobs.get.return_value.status = status
    return made


def job_error(message: str) -> JobException:
    return JobException(message=message, no_personal_data_message=message)


@pytest.mark.parametrize(("status", "code"), [("Completed", 0), ("Failed", 1), ("Canceled", 1), ("Of The Future", 1)])
def test_the_exit_status_is_that_of_the_job(status: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(client(status), "mine", cancel_on_interrupt=False) == code
    assert capsys.readouterr().out == f"job mine: {status.lower()}\n"


def test_a_failed_job_is_one_line_with_azures_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(client(error=job_error(FAILED)), "mine", cancel_on_interrupt=False) == 1
    assert capsys.readouterr().out == "job mine: failed: out of memory\n"


@pytest.mark.parametrize("cancel", [True, False])
def test_ctrl_c_cancels_the_job_only_if_requested(cancel: bool, capsys: pytest.CaptureFixture[str]) -> None:
    of_the_sdk = job_error("interrupted")
    of_the_sdk.__cause__ = KeyboardInterrupt()
    for error in (KeyboardInterrupt(), of_the_sdk):
        watched = client(error=error)
        assert watch(watched, "mine", cancel) == 1
        assert watched.jobs.begin_cancel.called is cancel
        printed = capsys.readouterr().out
        assert printed == "job mine: canceled\n" if cancel else "make azure-fetch JOB=mine" in printed


def test_an_azure_that_does_not_answer_is_an_error_and_a_refusal_is_passed_on() -> None:
    with pytest.raises(InputError, match=r"^job mine: .*it may still be running"):
        watch(client(error=ServiceRequestError("no route")), "mine", cancel_on_interrupt=False)
    refusal = HttpResponseError("no")
    refusal.status_code = 403
    with pytest.raises(HttpResponseError):
        watch(client(error=refusal), "mine", cancel_on_interrupt=False)


# a transfer


def sleeper(seconds: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-IS", "-c", f"import time; time.sleep({seconds})"])


def test_a_transfer_is_stopped_when_the_container_no_longer_answers() -> None:
    container = mock.Mock()
    container.problem.return_value = "tunepress does not answer"
    with sleeper(60) as process:
        with pytest.raises(InputError, match=r"^tunepress does not answer; .* 0\.2 s"):
            share.watch(process, container, patience=0.2)
        assert process.wait(10) < 0


def test_a_transfer_that_ends_is_left_alone() -> None:
    container = mock.Mock()
    container.problem.return_value = None
    with sleeper(0.3) as process:
        share.watch(process, container, patience=0.2)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("command", "remote"),
    [(["push"], None), (["push", "-r", "mine"], "mine"), (["push", "-rmine"], "mine"), (["pull", "--remote=mine", "x"], "mine")],
)
def test_the_remote_of_a_command_is_found(command: list[str], remote: str | None) -> None:
    assert share.named_remote(command) == remote
