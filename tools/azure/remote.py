"""Makes a container in Azure the DVC remote of this project: `make remote-azure URL=azure://container/path`.

The address goes to .dvc/config, which is in git. What logs in stays in the environment, in `az login`, or with --store in
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
ADDRESS = re.compile(r"azure://[a-z0-9](-?[a-z0-9]){2,62}(/[\w.-]+)*/?")  # a container's name as Azure allows it


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.azure.remote", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="azure://container/path")
    parser.add_argument("--account", help="the storage account, where the environment does not name it")
    parser.add_argument("--store", action="store_true", help="keep what logs in now in .dvc/config.local")
    arguments = parser.parse_args()
    try:
        print(set_up(arguments.url, arguments.account, arguments.store))
    except InputError as error:
        sys.exit(f"remote-azure: {error}")


def set_up(url: str, account: str | None, store: bool) -> str:
    """Writes the remote down once its container answers.

    Args:
        url: the container and a path in it.
        account: the storage account's name, if the login does not tell.
        store: whether the login is kept in .dvc/config.local.

    Returns:
        One line that says what was done.

    Raises:
        InputError: the URL is none, or DVC would not get in; nothing is written.
    """
    if not ADDRESS.fullmatch(url):
        raise InputError("URL= is azure://container/path, without an account, a key or a token in it")
    config = Config.from_cwd(validate=False)  # a kept login without its address, as on another branch, is no valid remote
    own = config.load_one("local")["remote"].get(NAME, {})
    address = {"url": url} | ({"account_name": account} if account else {})
    config["remote"][NAME] = own | address
    container = Container(config, NAME)
    container.check()
    secrets = container.secrets()
    if store and not secrets:
        raise InputError(f"{container.login} leaves nothing to store: leave STORE out")
    if "connection_string" not in secrets:  # which names the account itself, and another host than the usual perhaps
        address["account_name"] = container.account
    with config.edit("repo") as tracked:
        tracked["remote"][NAME] = address
        tracked["core"]["remote"] = NAME
    if store:
        keep(config, secrets)
    return (
        f"the DVC remote {NAME!r} is {url} in account {container.account}, reached with {container.login}"
        f"{', which .dvc/config.local keeps now' if store else ''}; commit .dvc/config, then `make push` and `make pull`"
    )


def keep(config: Config, secrets: dict[str, str]) -> None:
    """Puts a login into .dvc/config.local, in place of an earlier one.

    Args:
        config: of the project.
        secrets: options of the remote.
    """
    path = Path(config.files["local"])
    path.touch(mode=0o600)
    path.chmod(0o600)
    with config.edit("local") as local:
        others = {option: value for option, value in local["remote"].get(NAME, {}).items() if option not in SECRETS}
        local["remote"][NAME] = others | secrets


if __name__ == "__main__":
    main()
