"""The container of a DVC remote in Azure Blob Storage: DVC's login, whether the container answers, and secrets in git.

The checks use DVC's own client, so they find what DVC would find, without its four tries and 84 s of silence.
dvc-azure 3.1.1 accepts `timeout`, `read_timeout` and `connection_timeout` and ignores them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob import StorageErrorCode
from dvc.config import Config, ConfigError
from dvc.fs import get_cloud_fs
from dvc_objects.fs.errors import AuthError
from fsspec.asyn import sync

from tunepress.core.errors import InputError, one_line

LIMIT = 5  # seconds to connect, and to answer
LOGIN_LIMIT = 30  # seconds for a login and an answer; `az` alone may take ten
SECRETS = ("connection_string", "account_key", "sas_token", "client_secret")
LOGINS = {  # and their options, in the order in which dvc-azure and adlfs try them
    "the connection string": ("connection_string",),
    "the account key": ("account_name", "account_key"),
    "the SAS token": ("account_name", "sas_token"),
    "the service principal": ("account_name", "tenant_id", "client_id", "client_secret"),
    "`az login` or a managed identity": ("account_name", "credential"),
}
SECRET_OPTIONS = {  # of dvc/config_schema.py (3.67.1), whose value alone grants access or decrypts
    "account_key",
    "client_secret",
    "connection_string",
    "gdrive_client_secret",
    "oss_key_secret",
    "passphrase",
    "password",
    "sas_token",
    "secret_access_key",
    "session_token",
    "sse_customer_key",
    "token",
}
NO_LOGIN = (
    "no credentials for Azure: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and one of AZURE_STORAGE_KEY, "
    "AZURE_STORAGE_SAS_TOKEN and `az login`"
)


class Container:
    """The container where a DVC remote keeps its files.

    Args:
        config: of the project, with the remote.
        remote: its name; by default the project's default remote.

    Raises:
        InputError: there is no such remote, it is not in Azure, git has a secret of it, or there are no credentials.
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
        refuse_tracked_secrets(config)
        self.name, _, self._folder = path.partition("/")
        self._system = system(**self._configured)
        try:
            self._login: dict[str, Any] = self._system.fs_args
            self._client = self._system.fs.service_client
        except AuthError as error:
            # without its cause, which may quote a part of the secret
            raise InputError(NO_LOGIN if error.__cause__ is None else f"{self.login} is malformed") from error

    @property
    def login(self) -> str:
        """The credentials that DVC uses, and where they come from."""
        chosen = self._chosen_login()
        secret = LOGINS[chosen][-1]
        if secret not in SECRETS:
            return chosen
        return f"{chosen} of {'.dvc/config.local' if secret in self._configured else 'the environment'}"

    @property
    def account(self) -> str:
        return str(self._client.account_name)

    def secrets(self) -> dict[str, str]:
        """The options of the login, including the account name; empty for a login without a secret."""
        chosen = self._chosen_login()
        return {option: str(self._login[option]) for option in LOGINS[chosen]} if LOGINS[chosen][-1] in SECRETS else {}

    def check(self) -> None:
        """Raises InputError if DVC cannot access the container."""
        if problem := self.problem():
            raise InputError(problem)

    def problem(self) -> str | None:
        """Why DVC cannot access the container, or None."""
        try:
            sync(self._system.fs.loop, self._list, timeout=LOGIN_LIMIT)
        except (AzureError, TimeoutError) as error:
            return self._explain(error)
        return None

    async def _list(self) -> None:
        """Lists one page of names, which every login that can read may do, even a SAS token for one container."""
        client = self._client.get_container_client(self.name)
        limits = {"retry_total": 0, "connection_timeout": LIMIT, "read_timeout": LIMIT}
        async for _ in client.list_blobs(name_starts_with=self._folder, results_per_page=1, **limits):
            return

    def _explain(self, error: Exception) -> str:
        code = getattr(error, "error_code", None)
        if code == StorageErrorCode.CONTAINER_NOT_FOUND:
            return (
                f"account {self.account} has no container {self.name!r}: fix the URL, or create it with "
                f"`az storage container create --account-name {self.account} --name {self.name}`"
            )
        if isinstance(error, ClientAuthenticationError) and error.status_code is None:
            return f"account {self.account}: no login with {self.login}: {one_line(error)}"
        if isinstance(error, HttpResponseError) and error.status_code in (401, 403):
            reason = getattr(code, "value", code) or error.reason
            return f"account {self.account} refuses {self.login} for container {self.name!r}: {reason}"
        return f"{self._client.primary_hostname} does not answer as expected: {one_line(error)}"

    def _chosen_login(self) -> str:
        return next(name for name, options in LOGINS.items() if all(self._login.get(option) for option in options))


def refuse_tracked_secrets(config: Config) -> None:
    """Raises InputError if .dvc/config has a secret: git publishes it, and every job's snapshot contains it."""
    if name := next(secret_names(config.load_one("repo")), None):
        raise InputError(
            f".dvc/config is in git and has {name}: remove it with `dvc config --unset {name}`, "
            "and replace the secret if it was ever committed"
        )


def secret_names(section: Mapping[str, Any]) -> Iterator[str]:
    """The secrets of a section and its subsections, as `dvc config` names them."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in secret_names(value))
        elif name in SECRET_OPTIONS:
            yield name
