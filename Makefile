# Tunepress: fine-tune, then press to int4. `make` lists the targets of this file.

# Variables of the user reach a recipe through its environment, as "$$NAME", unchanged: neither make nor the shell evaluates
# them. ARGS has words, quoted as for a shell; tools/cli/make_args.py splits them without a shell.
# Every variable of make's command line is exported, because commands read others, such as PIP_INDEX_URL, from the environment.
USERS := ACCOUNT ARGS BASE_DIGEST BASE_IMAGE CONFIG ENGINE EXPERIMENT EXTRA FOR GPUS IMAGE JOB MODEL NAME PORT PYTHON REPO RESET \
	REV SEARCH STORE STRICT TEXT TUNEPRESS_API_KEY URL VENV
USERS += $(foreach name,$(filter-out SHELL MAKE% USERS $(USERS),$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),$(name)))
$(foreach name,$(USERS),$(if $(filter-out undefined,$(origin $(name))),$(eval override export $(name) := $$(value $(name)))))
WITH_ARGS := python -m tools.cli.make_args

PYTHON ?= python3
VENV ?= .venv
HASH := \#
ifneq ($(words $(VENV)),1)
$(error VENV: must be one path without spaces, because targets contain it)
endif
$(foreach mark,$$ ; & | < > ( ) { } ` ' " * ? [ ] : % $(HASH) \ ~ !,$(if $(findstring $(mark),$(VENV)),$(error VENV: must be a path without $(mark))))
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Packages that only a CUDA build of torch needs; the CPU lock does not contain them.
CUDA_ONLY := cuda-bindings cuda-pathfinder cuda-toolkit triton nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

COMPILE := uv pip compile --quiet --python-version 3.11 --no-annotate --custom-compile-command 'make lock'

PYTEST := OMP_NUM_THREADS=1 python -m pytest -q --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Only for these targets: a `make` that another target runs, for example in a test, chooses its own.
docker-%: export ENGINE ?= docker
docker-%: export IMAGE ?= cuda13
docker-%: export GPUS ?= $(if $(filter cuda%,$(IMAGE)),all)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ The pipeline

.PHONY: repro
repro: setup ## run all stages, from the base model to the report, and print the results
	@python -m tools.cli.repro
	@python -m tools.cli.results

.PHONY: results
results: setup ## print the results of the last run
	@python -m tools.cli.results

.PHONY: report
report: setup ## write report.html: the report of the last run with a comparison of all experiments, in one file
	@python -m tools.cli.report

.PHONY: prompts
prompts: setup ## N=3: print training rows as the model sees them, with the part that it learns marked
	@python -m tools.cli.prompts --rows "$${N:-3}"

.PHONY: predict
predict: export TUNEPRESS_TEXT := $(value TEXT)
predict: setup ## TEXT="...": print the answer of the int4 model; without TEXT, answer lines of standard input; ARGS=--help lists the options
	@$(WITH_ARGS) tools.cli.predict

.PHONY: serve
serve: setup-serve ## ARGS="--port 8080 ...": serve the int4 model over HTTP with OpenAI's API; ARGS=--help lists the options
	@$(WITH_ARGS) tools.serve

.PHONY: package
package: setup ## FOR=foundry-local: write the int4 model for Foundry Local; FOR=hub REPO=me/x: upload it to the Hugging Face Hub; ARGS=--help lists the options
	@$(WITH_ARGS) tools.package $${FOR:+"$$FOR"} $${REPO:+--repo="$$REPO"} $${NAME:+--name="$$NAME"}

##@ Configuration and experiments

.PHONY: params
params: setup ## compose params.yaml from conf/ and keep the choices of an applied experiment; RESET=1 drops them
	@python -m tools.cli.params $(if $(RESET),--reset)

.PHONY: base-model
base-model: setup ## REPO=Qwen/Qwen3-0.6B: add a model of the Hugging Face Hub at its current commit to conf/base_model; NAME=..., REV=... for others
	@python -m tools.cli.base_model $${NAME:+--name="$$NAME"} $${REV:+--revision="$$REV"} -- "$$REPO"

.PHONY: exp-show
exp-show: setup ## compare experiments: the main metrics and the parameters that differ; REV=... for another commit
	@python -m tools.cli.experiments $${REV:+--rev="$$REV"}

.PHONY: import-olive
import-olive: setup ## CONFIG=olive-config.json NAME=mine: convert an Olive configuration to conf/experiment/mine.yaml; STRICT=1 needs full support
	@python -m tools.olive --name="$$NAME" $(if $(STRICT),--strict) -- "$$CONFIG"

.PHONY: search
search: setup-search ## SEARCH=int4: search for the best recipe under the constraints of conf/search/int4.yaml; resumes after an interruption
	@python -m tools.search -- "$$SEARCH"

##@ Docker: IMAGE=cuda13 (the default), cuda12 for an older driver, or cpu; ENGINE=podman

.PHONY: docker-train
docker-train: ## run an experiment on GPUs: EXPERIMENT=phi3_mini_lora (or the default), GPUS=0,1 (or all)
	@docker/build train "$$IMAGE"
	@docker/run train "$$IMAGE" dvc exp run -S environment="$$IMAGE" $${EXPERIMENT:+-S "+experiment=$$EXPERIMENT"}

.PHONY: docker-repro-cpu
docker-repro-cpu: ## run `make repro` in the CPU image
	@docker/build train cpu
	@GPUS= docker/run train cpu make --no-print-directory repro

.PHONY: docker-test
docker-test: ## run `make test-all` in the CPU image
	@docker/build test cpu
	@GPUS= docker/run test cpu make --no-print-directory test-all

.PHONY: docker-shell
docker-shell: ## open a shell in the image, with this working tree
	@docker/build train "$$IMAGE"
	@docker/run train "$$IMAGE" bash

.PHONY: docker-serve
docker-serve: ## serve MODEL=models/onnx over HTTP on PORT=8080 of this machine
	@docker/build serve "$$IMAGE"
	@docker/run serve "$$IMAGE"

.PHONY: docker-build
docker-build: ## build the images for training and serving
	@docker/build train "$$IMAGE"
	@docker/build serve "$$IMAGE"

.PHONY: docker-digests
docker-digests: ## look up the digest of the base image and write it to docker/versions.env
	@docker/digests

##@ Azure

.PHONY: remote-azure
remote-azure: setup-azure ## URL=azure://container/path: set up the DVC remote; ACCOUNT=name with `az login`, STORE=1 stores the key outside git
	@python -m tools.azure.remote $${ACCOUNT:+--account="$$ACCOUNT"} $(if $(STORE),--store) -- "$$URL"

.PHONY: push
push: setup-azure ## upload the outputs to the remote in Azure, with a clear error when it is down; ARGS="--run-cache ..."
	@$(WITH_ARGS) tools.azure.share push

.PHONY: pull
pull: setup-azure ## download the outputs of this commit from the remote in Azure
	@$(WITH_ARGS) tools.azure.share pull

.PHONY: azure-publish
azure-publish: setup-azure ## NAME=tone: register the int4 model, its card and metrics in Azure ML; ARGS=--help lists the options
	@$(WITH_ARGS) tools.azure.publish "$$NAME"

.PHONY: azure-submit
azure-submit: setup-azure ## EXPERIMENT=smoke ARGS="compute=gpu-cluster": run an experiment on Azure ML; ARGS="... --dry-run" only checks it
	@$(WITH_ARGS) tools.azure.submit $${EXPERIMENT:+--experiment="$$EXPERIMENT"}

.PHONY: azure-fetch
azure-fetch: setup-azure ## JOB=name: download the result of such a job
	@$(WITH_ARGS) tools.azure.fetch "$$JOB"

##@ Development

.PHONY: test
test: setup-dev ## the fast tests, which cover every module: at most 8 minutes on 2 cores
	@$(PYTEST) -m "not slow"

.PHONY: test-all
test-all: setup-dev ## all tests, those with DVC, a browser, Azurite and container images too: at most 50 minutes on 2 cores
	@$(PYTEST)

.PHONY: test-images
test-images: setup-dev ## the tests that build and run the images for the CPU; they need root, podman, runc, catatonit and debootstrap
	@python -m pytest -q tests/docker/test_podman.py

.PHONY: lint
lint: setup-dev ## run ruff, mypy and the word list of tools/cli/english.py
	@ruff check .
	@ruff format --check .
	@python -m tools.cli.english
	@mypy

.PHONY: format
format: setup-dev ## format the code with ruff
	@ruff check --fix .
	@ruff format .

.PHONY: docs
docs: setup ## write the generated parts of README.md and docs/ again
	@python -m tools.docs

.PHONY: lock
lock: setup-dev ## resolve requirements/*.in to exact versions again
	@cd requirements && for name in cpu search harness dev serve azure; do \
		$(COMPILE) --universal $(addprefix --no-emit-package ,$(CUDA_ONLY)) $$name.in --output-file $$name.txt || exit 1; done
	@cd requirements && for name in cuda13 cuda12 serve-cuda13 serve-cuda12; do \
		$(COMPILE) --python-platform x86_64-manylinux_2_28 $$name.in --output-file $$name.txt || exit 1; done

.PHONY: doctor
doctor: setup ## check whether the recipe can run here; EXPERIMENT=phi3_mini_lora or ARGS="build=cuda_int4 ..." checks another
	@$(WITH_ARGS) tools.doctor $${EXPERIMENT:+"+experiment=$$EXPERIMENT"}

.PHONY: setup
setup: $(VENV)/.cpu ## create the environment in .venv, exactly as in requirements/cpu.txt

.PHONY: setup-search
setup-search: $(VENV)/.search

.PHONY: setup-harness
setup-harness: $(VENV)/.harness ## add lm-evaluation-harness, for evaluate.tasks

.PHONY: setup-serve
setup-serve: $(VENV)/.serve

.PHONY: setup-dev
setup-dev: $(VENV)/.dev $(VENV)/.search $(VENV)/.harness $(VENV)/.serve $(VENV)/.azure $(if $(shell command -v npm),tests/azure/node_modules)

.PHONY: setup-azure
setup-azure: $(VENV)/.azure ## add the packages for rows, models, jobs and remotes in Azure

$(VENV)/.cpu: export PYTHON := $(PYTHON)
$(VENV)/.cpu: requirements/cpu.txt
	@"$$PYTHON" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@echo "creating the environment in $(VENV), once"
	@"$$PYTHON" -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.cpu
$(VENV)/.search: requirements/search.txt $(VENV)/.cpu
$(VENV)/.harness: requirements/harness.txt $(VENV)/.cpu
$(VENV)/.serve: requirements/serve.txt $(VENV)/.cpu
$(VENV)/.azure: requirements/azure.txt $(VENV)/.cpu
$(VENV)/.dev $(VENV)/.search $(VENV)/.harness $(VENV)/.serve $(VENV)/.azure:
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

# Azurite: Azure Blob Storage on this machine.
tests/azure/node_modules: tests/azure/package-lock.json
	@npm ci --prefix tests/azure --silent
	@touch $@

.PHONY: clean
clean: ## remove the environment and the outputs of all stages; DVC's cache is kept
	rm -rf $(VENV) .checkpoints models data/collected data/prepared predictions report \
		$(filter-out metrics/summary.json metrics/speed.json,$(wildcard metrics/*))

.PHONY: help
help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
