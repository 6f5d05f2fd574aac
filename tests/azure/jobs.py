"""Azure Machine Learning's jobs: code, environments, computes, the jobs themselves, their history and their logs."""

from dataclasses import dataclass, field
from typing import Any

from tests.azure.azurite import ACCOUNT, Azurite
from tests.azure.cloud import Answer, Cloud, Request, refuse, say
from tests.azure.machine_learning import ARM, CONTAINER, DISCOVERY, GROUP, REGION, SUBSCRIPTION, WORKSPACE, absent, resource

HISTORY = f"{REGION}history/v1.0/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices"
LOG = "user_logs/std_log.txt"
LOGS = "https://logs.core.windows.net/std_log.txt"


@dataclass
class Jobs:
    """Beside a `MachineLearning`, and runs no job.

    `statuses` are what is said of it each time that somebody asks, the last one again and again.
    """

    storage: Azurite
    computes: dict[str, str] = field(default_factory=lambda: {"gpu-cluster": "AmlCompute", "arc": "Kubernetes"})  # name: type
    jobs: dict[str, Any] = field(default_factory=dict)  # properties, by name
    environments: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, Any] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=lambda: ["Queued", "Running", "Running", "Completed"])
    logs: list[str] = field(default_factory=lambda: ["fetch: done\n", "fetch: done\ntrain: done\n"])  # as it grows
    error: str = "the node has run out of memory"
    canceled: list[str] = field(default_factory=list)

    def serve(self, cloud: Cloud) -> None:
        """Adds the routes."""
        name, version = "(?P<name>[^/]+)", "(?P<version>[^/]+)"
        cloud.route("GET", DISCOVERY, lambda request: say({"api": REGION.rstrip("/")}))
        cloud.route("GET", f"{ARM}/computes/{name}", self.compute)
        cloud.route("GET", f"{ARM}/codes/{name}/versions", lambda request, name: say({"value": []}))
        cloud.route("POST", f"{ARM}/codes/{name}/versions/{version}/startPendingUpload", self.pending_upload)
        cloud.route("PUT", f"{ARM}/codes/{name}/versions/{version}", self.put_code)
        cloud.route("PUT", f"{ARM}/environments/{name}/versions/{version}", self.put_environment)
        cloud.route("PUT", f"{ARM}/jobs/{name}", self.put_job)
        cloud.route("GET", f"{ARM}/jobs/{name}", self.job)
        cloud.route("POST", f"{ARM}/jobs/{name}/cancel", self.cancel)
        cloud.route("GET", f"{HISTORY}/workspaces/{WORKSPACE}/runs/{name}/details", self.details)
        cloud.route("POST", f"{HISTORY}/workspaces/{WORKSPACE}/rundata", self.run_data)
        cloud.route("GET", LOGS, self.log)

    def compute(self, request: Request, name: str) -> Answer:
        if name not in self.computes:
            return absent(request)
        return say(resource("computes", name, {"computeType": self.computes[name], "properties": {}}))

    def pending_upload(self, request: Request, name: str, version: str) -> Answer:
        address = f"https://{ACCOUNT}.blob.core.windows.net/{CONTAINER}"
        credential = {"credentialType": "SAS", "sasUri": f"{address}?{self.storage.sas_token}"}
        return say({"blobReferenceForConsumption": {"blobUri": address, "credential": credential}})

    def put_code(self, request: Request, name: str, version: str) -> Answer:
        self.codes[name] = request.json["properties"]
        return say(resource(f"codes/{name}/versions", version, self.codes[name]))

    def put_environment(self, request: Request, name: str, version: str) -> Answer:
        self.environments[name] = request.json["properties"]
        return say(resource(f"environments/{name}/versions", version, {"osType": "Linux", **self.environments[name]}))

    def put_job(self, request: Request, name: str) -> Answer:
        services = {"Studio": {"endpoint": f"https://ml.azure.com/runs/{name}", "jobServiceType": "Studio"}}
        self.jobs[name] = {"services": services, "status": "NotStarted"} | request.json["properties"]
        return say(resource("jobs", name, self.jobs[name]), 201)

    def job(self, request: Request, name: str) -> Answer:
        if name not in self.jobs:
            return absent(request)
        return say(resource("jobs", name, self.jobs[name] | {"status": self.statuses[0]}))

    def cancel(self, request: Request, name: str) -> Answer:
        self.canceled.append(name)
        self.statuses = ["Canceled"]
        return Answer(200)

    def details(self, request: Request, name: str) -> Answer:
        if len(self.statuses) > 1:
            self.statuses.pop(0)
        error = {"error": {"code": "UserError", "message": self.error}} if self.statuses[0] == "Failed" else None
        return say({"runId": name, "status": self.statuses[0], "logFiles": {LOG: LOGS}, "error": error})

    def run_data(self, request: Request) -> Answer:
        name = request.json["runId"]
        return say({"runMetadata": {"runId": name}}) if name in self.jobs else refuse(404, "UserError", "no such run")

    def log(self, request: Request) -> Answer:
        text = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
        return Answer(200, text.encode(), {"Content-Type": "text/plain"})
