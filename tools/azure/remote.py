"""Makes a container in Azure the default DVC remote: `make remote-azure URL=azure://container/path`.

The address is written to .dvc/config, which is in git. Credentials stay in the environment, in `az login`, or with --store in
.dvc/config.local, which git ignores and only its owner can read.
"""

import argparse
import re
import sys
from pathlib import Path

from dvc.config import Config

from tools.azure.container import SECRETS, Container
from tunepress.core.errors import InputError

NAME = "azure"
ADDRESS = re.compile(r"azure://[a-z0-9](-?[a-z0-9]){2,62}(/[\w.-]+)*/?")  # with the names that Azure allows for a container


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.azure.remote", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="azure://container/path")
    parser.add_argument("--account", help="storage account, unless the environment names it")
    parser.add_argument("--store", action="store_true", help="store the current credentials in .dvc/config.local")
    arguments = parser.parse_args()
    try:
        print(set_up(arguments.url, arguments.account, arguments.store))
    except InputError as error:
        sys.exit(f"remote-azure: {error}")


def set_up(url: str, account: str | None, store: bool) -> str:
    """Adds the remote once its container answers.

    Args:
        url: of the container, with an optional path.
        account: the storage account, unless the login contains it.
        store: whether to store the credentials in .dvc/config.local.

    Returns:
        A message of one line.

    Raises:
        InputError: the URL is invalid, or DVC cannot access the container; nothing is written.
    """
    if not ADDRESS.fullmatch(url):
        raise InputError("URL= must be azure://container/path, without an account, a key or a token")
    config = Config.from_cwd(
        validate=False
    )  # stored credentials without their address, as on another branch, are not a valid remote
    stored = config.load_one("local")["remote"].get(NAME, {})
    address = {"url": url} | ({"account_name": account} if account else {})
    config["remote"][NAME] = stored | address
    container = Container(config, NAME)
    container.check()
    secrets = container.secrets()
    if store and not secrets:
        raise InputError(f"{container.login} has no secret to store: omit STORE")
    if "connection_string" not in secrets:  # which has the account, and possibly an unusual host
        address["account_name"] = container.account
    with config.edit("repo") as tracked:
        tracked["remote"][NAME] = address
        tracked["core"]["remote"] = NAME
    if store:
        store_login(config, secrets)
    return (
        f"the DVC remote {NAME!r} is {url} in account {container.account}, reached with {container.login}"
        f"{', which is now stored in .dvc/config.local' if store else ''}; commit .dvc/config, then `make push` and `make pull`"
    )


def store_login(config: Config, secrets: dict[str, str]) -> None:
    """Writes the options of a login to .dvc/config.local, in place of earlier ones."""
    path = Path(config.files["local"])
    path.touch(mode=0o600)
    path.chmod(0o600)
    with config.edit("local") as local:
        others = {option: value for option, value in local["remote"].get(NAME, {}).items() if option not in SECRETS}
        local["remote"][NAME] = others | secrets


if __name__ == "__main__":
    main()
