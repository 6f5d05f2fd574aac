"""The Hugging Face token, from an Azure Key Vault."""

import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import DefaultAzureCredential

from tunepress.core.errors import InputError, one_line

SECRET = "hf-token"  # noqa: S105  (its name, the same as in Olive's AzureML system)
SCOPE = "https://vault.azure.net/.default"
LIMIT = 60  # seconds
ROLE = "give the compute's identity the role `Key Vault Secrets User`"


def hugging_face_token(vault: str) -> str:
    """Reads the secret `hf-token` with the identity of the node.

    Args:
        vault: URL of the vault.

    Raises:
        InputError: no identity, no permission, no such secret or no connection.
    """
    try:
        token = DefaultAzureCredential().get_token(SCOPE).token
        url = f"{vault}/secrets/{SECRET}"
        bearer = {"Authorization": f"Bearer {token}"}
        response = requests.get(url, params={"api-version": "7.4"}, headers=bearer, timeout=LIMIT, allow_redirects=False)
    except ClientAuthenticationError as error:
        raise InputError(f"Key Vault {vault}: no identity to log in with; assign the compute one, and {ROLE}") from error
    except requests.RequestException as error:
        raise InputError(f"Key Vault {vault}: {one_line(error)}") from error
    if response.status_code == requests.codes.ok:
        return str(response.json()["value"])
    if response.status_code == requests.codes.not_found:
        raise InputError(f"Key Vault {vault}: no secret `{SECRET}`; `az keyvault secret set --name {SECRET}` creates it")
    raise InputError(f"Key Vault {vault}: refused with status {response.status_code}; {ROLE}")
