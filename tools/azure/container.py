"""The container of a DVC remote in Azure Blob Storage: the login that DVC takes for it, and whether it answers.

DVC's own client is asked, so what is found here is what DVC would find, without its four tries and the 84 s of silence
before it speaks. dvc-azure 3.1.1 accepts `timeout`, `read_timeout` and `connection_timeout` and drops them.
"""

from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob import StorageErrorCode
from dvc.config import Config, ConfigError
from dvc.fs import get_cloud_fs
from dvc_objects.fs.errors import AuthError
from fsspec.asyn import sync

from tools.azure import tracked_secrets
from tunepress.core.errors import InputError, one_line

LIMIT = 5  # seconds to connect, and to answer
LOGIN_LIMIT = 30  # seconds for a login and an answer; `az` alone may take ten
SECRETS = ("connection_string", "account_key", "sas_token", "client_secret")
LOGINS = {  # by their options, in the order in which dvc-azure and adlfs prefer them
    "the connection string": ("connection_string",),
    "the account key": ("account_name", "account_key"),
    "the SAS token": ("account_name", "sas_token"),
    "the service principal": ("account_name", "tenant_id", "client_id", "client_secret"),
    "`az login` or a managed identity": ("account_name", "credential"),
}
NO_LOGIN = (
    "no credentials for Azure: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and one of AZURE_STORAGE_KEY, "
    "AZURE_STORAGE_SAS_TOKEN and `az login`"
)


class Container:
    """Where a DVC remote keeps its files.

    Args:
        config: of the project, with the remote in it.
        remote: its name; without one, the project's default.

    Raises:
        InputError: there is no such remote, it is elsewhere, a secret of it is in git, or nothing says how to log in.
    """

    def __init__(self, config: Config, remote: str | None = None) -> None:
        self.remote = remote or config["core"].get("remote")
        if not self.remote:
            raise InputError("the project has no DVC remote: `make remote-azure URL=azure://container/path` sets one up")
        try:
            system, self._configured, path = get_cloud_fs(config, name=self.remote)
        except ConfigError as error:
            raise InputError(one_line(error)) from error
        if system.protocol != "azure":
            raise InputError(f"the DVC remote {self.remote!r} is not in Azure: use `dvc` itself")
        tracked_secrets.refuse(config)
        self.name, _, self._folder = path.partition("/")
        self._system = system(**self._configured)
        try:
            self._login: dict[str, Any] = self._system.fs_args
            self._client = self._system.fs.service_client
        except AuthError as error:
            # its cause is not told: it may quote a part of the secret
            raise InputError(NO_LOGIN if error.__cause__ is None else f"{self.login} is malformed") from error

    @property
    def login(self) -> str:
        """What DVC logs in with, and where that comes from."""
        chosen = self._chosen_login()
        secret = LOGINS[chosen][-1]
        if secret not in SECRETS:
            return chosen
        return f"{chosen} of {'.dvc/config.local' if secret in self._configured else 'the environment'}"

    @property
    def account(self) -> str:
        """The storage account's name."""
        return str(self._client.account_name)

    def secrets(self) -> dict[str, str]:
        """The options that log in, the account's name included; none for a login that leaves nothing to keep."""
        chosen = self._chosen_login()
        return {option: str(self._login[option]) for option in LOGINS[chosen]} if LOGINS[chosen][-1] in SECRETS else {}

    def check(self) -> None:
        """Asks whether the container is there and lets us in.

        Raises:
            InputError: it does not; in one line.
        """
        if trouble := self.trouble():
            raise InputError(trouble)

    def trouble(self) -> str | None:
        """What keeps DVC from the container, or None."""
        try:
            sync(self._system.fs.loop, self._list, timeout=LOGIN_LIMIT)
        except (AzureError, TimeoutError) as error:
            return self._explained(error)
        return None

    async def _list(self) -> None:
        """One page of names: what every login that can read may ask, a SAS token for one container included."""
        client = self._client.get_container_client(self.name)
        limits = {"retry_total": 0, "connection_timeout": LIMIT, "read_timeout": LIMIT}
        async for _ in client.list_blobs(name_starts_with=self._folder, results_per_page=1, **limits):
            return

    def _explained(self, error: Exception) -> str:
        code = getattr(error, "error_code", None)
        if code == StorageErrorCode.CONTAINER_NOT_FOUND:
            return (
                f"account {self.account} has no container {self.name!r}: mend the URL, or make it with "
                f"`az storage container create --account-name {self.account} --name {self.name}`"
            )
        if isinstance(error, ClientAuthenticationError) and error.status_code is None:
            return f"account {self.account}: no login with {self.login}: {one_line(error)}"
        if isinstance(error, HttpResponseError) and error.status_code in (401, 403):
            said = getattr(code, "value", code) or error.reason
            return f"account {self.account} refuses {self.login} for container {self.name!r}: {said}"
        return f"{self._client.primary_hostname} does not answer as it should: {one_line(error)}"

    def _chosen_login(self) -> str:
        return next(name for name, options in LOGINS.items() if all(self._login.get(option) for option in options))
