"""Azure Machine Learning's management calls, for one workspace and one registry of a `Cloud`.

What they hold are dictionaries in the form that goes over the wire; a test puts its own in. Blobs are in the workspace's
own store.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.azure.azurite import ACCOUNT
from tests.azure.cloud import Answer, Cloud, Request, refuse, say

SUBSCRIPTION = "22222222-2222-2222-2222-222222222222"
GROUP = "group"
WORKSPACE = "workspace"
REGISTRY = "registry"
CONTAINER = "azureml"
UPLOADED = "uploaded"  # the container that the registry has a new model's files put in
STORE = "workspaceblobstore"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices"
ARM = f"https://management.azure.com{SCOPE}/workspaces/{WORKSPACE}"
URI = f"azureml://subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/workspaces/{WORKSPACE}"
REGION = "https://region.api.azureml.ms/"
DISCOVERY = f"{REGION}discovery/workspaces/{WORKSPACE}"
REGISTRY_ARM = f"{REGION}mferp/managementfrontend{SCOPE}/registries/{REGISTRY}"

Properties = dict[str, Any]


def blob_store(account: str = ACCOUNT, container: str = CONTAINER, credentials: str = "AccountKey") -> Properties:
    """The properties of a data store of blobs; `credentials` is AccountKey, Sas or None, which is identity."""
    return {
        "datastoreType": "AzureBlob",
        "accountName": account,
        "containerName": container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "credentials": {"credentialsType": credentials},
        "isDefault": True,
    }


def model(uri: str, kind: str = "custom_model") -> Properties:
    """The properties of a model whose files are at `uri`."""
    return {"modelUri": uri, "modelType": kind, "flavors": {}, "properties": {}, "tags": {}}


@dataclass
class MachineLearning:
    """One workspace and one registry."""

    datastores: dict[str, Properties] = field(default_factory=lambda: {STORE: blob_store()})
    secrets: dict[str, Properties] = field(default_factory=dict)  # by data store: {"secretsType": "AccountKey", "key": ...}
    models: dict[tuple[str, str], Properties] = field(default_factory=dict)  # of the workspace, by name and version
    shared_models: dict[tuple[str, str], Properties] = field(default_factory=dict)  # of the registry
    sas_token: str = ""  # lets the blobs of the registry be read

    def serve(self, cloud: Cloud) -> None:
        """Adds the routes."""
        name, version = "(?P<name>.+)", "(?P<version>[^/]+)"
        cloud.route("GET", "https://management.azure.com/.*", absent)
        cloud.route("GET", ARM, self.workspace)
        cloud.route("GET", f"{ARM}/datastores", self.list_datastores)
        cloud.route("GET", f"{ARM}/datastores/{name}", self.datastore)
        cloud.route("POST", f"{ARM}/datastores/{name}/listSecrets", self.list_secrets)
        cloud.route("GET", f"{ARM}/models/{name}/versions", self.list_models)
        cloud.route("GET", f"{ARM}/models/{name}/versions/{version}", self.model)
        cloud.route("PUT", f"{ARM}/models/{name}/versions/{version}", self.put_model)
        discovery = "https://eastus.api.azureml.ms/registrymanagement/v1.0/registries"
        cloud.route("GET", f"{discovery}/{name}/discovery", self.registry)
        cloud.route("GET", f"{REGISTRY_ARM}/models/{name}/versions/{version}", self.shared_model)
        cloud.route("PUT", f"{REGISTRY_ARM}/models/{name}/versions/{version}", self.put_shared_model)
        cloud.route("GET", f"{REGISTRY_ARM}/models/{name}/versions", lambda request, name: say({"value": []}))
        cloud.route("PUT", f"{REGISTRY_ARM}/tempdatarefs/{name}/versions/{version}", self.place_to_upload)
        cloud.route("POST", f"{REGISTRY_ARM}/datarefs/{name}/versions/{version}", self.data_reference)

    def workspace(self, request: Request) -> Answer:
        workspace = {"friendlyName": WORKSPACE, "workspaceId": "33333333-3333-3333-3333-333333333333"}
        properties = workspace | {"discoveryUrl": DISCOVERY}
        return say({"id": f"{SCOPE}/workspaces/{WORKSPACE}", "name": WORKSPACE, "location": "region", "properties": properties})

    def list_datastores(self, request: Request) -> Answer:
        return say({"value": [resource("datastores", name, self.datastores[name]) for name in self.datastores]})

    def datastore(self, request: Request, name: str) -> Answer:
        if name not in self.datastores:
            return refuse(404, "UserError", f"Could not find datastore: {name}")
        return say(resource("datastores", name, self.datastores[name]))

    def list_secrets(self, request: Request, name: str) -> Answer:
        return say(self.secrets[name])

    def model(self, request: Request, name: str, version: str) -> Answer:
        if (name, version) not in self.models:
            return refuse(404, "UserError", f"Model {name}:{version} was not found in the workspace")
        return say(resource(f"models/{name}/versions", version, self.models[name, version]))

    def list_models(self, request: Request, name: str) -> Answer:
        versions = [version for known, version in self.models if known == name]
        return say({"value": [resource(f"models/{name}/versions", version, self.models[name, version]) for version in versions]})

    def put_model(self, request: Request, name: str, version: str) -> Answer:
        self.models[name, version] = model("") | request.json["properties"]
        return self.model(request, name, version)

    def registry(self, request: Request, name: str) -> Answer:
        if name != REGISTRY:
            return refuse(404, "UserError", f"Registry {name} was not found")
        discovery = {"registryName": REGISTRY, "subscriptionId": SUBSCRIPTION, "resourceGroup": GROUP}
        return say({**discovery, "primaryRegionResourceProviderUri": REGION})

    def shared_model(self, request: Request, name: str, version: str) -> Answer:
        if (name, version) not in self.shared_models:
            return refuse(404, "UserError", f"Model {name}:{version} was not found in the registry")
        # the SDK takes no id with a slash in its name, so Azure's cannot have one
        known = f"azureml://registries/{REGISTRY}/models/{quote(name, safe='')}/versions/{version}"
        return say({"id": known, "name": version, "properties": self.shared_models[name, version]})

    def put_shared_model(self, request: Request, name: str, version: str) -> Answer:
        self.shared_models[name, version] = model("") | request.json["properties"]
        return self.shared_model(request, name, version)

    def place_to_upload(self, request: Request, name: str, version: str) -> Answer:
        place = f"https://{ACCOUNT}.blob.core.windows.net/{UPLOADED}?{self.sas_token}"
        return say({"blobReferenceForConsumption": {"credential": {"credentialType": "SAS", "sasUri": place}}})

    def data_reference(self, request: Request, name: str, version: str) -> Answer:
        container = request.json["blobUri"].split("/", 4)  # https: // account / container / path
        signed = f"{'/'.join(container[:4])}?{self.sas_token}"
        credential = {"credentialType": "SAS", "sasUri": signed}
        return say({"blobReferenceForConsumption": {"blobUri": request.json["blobUri"], "credential": credential}})


def resource(kind: str, name: str, properties: Properties) -> Properties:
    """Something of the workspace as Azure Resource Manager shows it."""
    return {"id": f"{SCOPE}/workspaces/{WORKSPACE}/{kind}/{name}", "name": name, "type": kind, "properties": properties}


def absent(request: Request) -> Answer:
    """Says that something is not there."""
    thing = request.url.partition("?")[0].rpartition("/")[2]
    return refuse(404, "ResourceNotFound", f"The Resource '{thing}' under resource group '{GROUP}' was not found.")
