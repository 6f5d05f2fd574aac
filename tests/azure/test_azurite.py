"""The storage that the other tests of this folder use."""

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient

from tests.azure.azurite import Azurite


def test_that_what_it_holds_outlives_the_server(azurite: Azurite) -> None:
    first = azurite.upload("kept", "folder/row.txt", b"one")
    address = azurite.account_url
    azurite.stop()
    azurite.start()
    assert azurite.account_url == address
    assert azurite.container("kept").download_blob("folder/row.txt").readall() == b"one"
    assert azurite.upload("kept", "folder/row.txt", b"two") != first


def test_that_a_token_opens_it_and_its_absence_does_not(azurite: Azurite) -> None:
    azurite.upload("tokens", "row.txt", b"one")
    with_token = BlobServiceClient(azurite.account_url, credential=azurite.sas_token).get_container_client("tokens")
    assert with_token.download_blob("row.txt").readall() == b"one"
    with pytest.raises(HttpResponseError):
        BlobServiceClient(azurite.account_url, retry_total=0).get_container_client("tokens").download_blob("row.txt")
