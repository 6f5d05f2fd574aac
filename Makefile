# Tunepress: fine-tune, then press to int4. `make` prints this file's targets.

# What a user sets reaches a recipe as a variable of its environment, "$$NAME", letter by letter: neither make nor the shell
# evaluates it. ARGS holds words, quoted as for a shell; tools/cli/make_args.py splits them and runs no shell either.
# So does every variable of make's command line: the commands read others, such as PIP_INDEX_URL, from the environment.
USERS := ACCOUNT ARGS BASE_DIGEST BASE_IMAGE CONFIG ENGINE EXPERIMENT EXTRA GPUS IMAGE JOB MODEL NAME PORT PYTHON RESET REV \
	SEARCH STORE STRICT TEXT TUNEPRESS_API_KEY URL VENV
USERS += $(foreach name,$(filter-out SHELL MAKE% USERS $(USERS),$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),$(name)))
$(foreach name,$(USERS),$(if $(filter-out undefined,$(origin $(name))),$(eval override export $(name) := $$(value $(name)))))
WITH_ARGS := python -m tools.cli.make_args

PYTHON ?= python3
VENV ?= .venv
HASH := \#
ifneq ($(words $(VENV)),1)
$(error VENV: must be one path without spaces, for it names targets)
endif
$(foreach mark,$$ ; & | < > ( ) { } ` ' " * ? [ ] : % $(HASH) \ ~ !,$(if $(findstring $(mark),$(VENV)),$(error VENV: must be a path without $(mark))))
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Packages that only a CUDA build of torch needs: the CPU lock leaves them out.
CUDA_ONLY := cuda-bindings cuda-pathfinder cuda-toolkit triton nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

COMPILE := uv pip compile --quiet --python-version 3.11 --no-annotate --custom-compile-command 'make lock'

PYTEST := OMP_NUM_THREADS=1 python -m pytest -q --numprocesses auto --maxprocesses 8 --dist loadfile

# Of these targets alone: a `make` in what another target runs, a test for one, makes its own choice.
docker-%: export ENGINE ?= docker
docker-%: export IMAGE ?= cuda13
docker-%: export GPUS ?= $(if $(filter cuda%,$(IMAGE)),all)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ The pipeline

.PHONY: repro
repro: setup ## all stages, from the base model to the report; then the table
	@python -m tools.cli.repro
	@python -m tools.cli.results

.PHONY: results
results: setup ## the table of the last run
	@python -m tools.cli.results

.PHONY: report
report: setup ## report.html: the last run's report with all experiments beside it, one file to send
	@python -m tools.cli.report

.PHONY: predict
predict: export TUNEPRESS_TEXT := $(value TEXT)
predict: setup ## TEXT="...": the int4 model's answer; without TEXT it reads lines from standard input
	@python -m tools.cli.predict

.PHONY: serve
serve: setup-serve ## ARGS="--port 8080 ...": the int4 model over HTTP, as OpenAI's API; ARGS=--help lists its options
	@$(WITH_ARGS) tools.serve

##@ Configuration and experiments

.PHONY: params
params: setup ## compose params.yaml from conf/, keeping what an experiment chose; RESET=1 drops that
	@python -m tools.cli.params $(if $(RESET),--reset)

.PHONY: exp-show
exp-show: setup ## experiments side by side: the figures that decide and what differs; REV=... those of another commit
	@python -m tools.cli.experiments $${REV:+--rev="$$REV"}

.PHONY: import-olive
import-olive: setup ## CONFIG=olive-config.json NAME=mine: conf/experiment/mine.yaml of an Olive configuration; STRICT=1 refuses losses
	@python -m tools.olive --name="$$NAME" $(if $(STRICT),--strict) -- "$$CONFIG"

.PHONY: search
search: setup-search ## SEARCH=int4: the best recipe under constraints, of conf/search/int4.yaml; goes on where it was stopped
	@python -m tools.search -- "$$SEARCH"

##@ Docker: IMAGE=cuda13 (the default), cuda12 for an older driver, or cpu; ENGINE=podman

.PHONY: docker-train
docker-train: ## an experiment on the GPUs: EXPERIMENT=phi3_mini_lora (or the default), GPUS=0,1 (or all)
	@docker/build train "$$IMAGE"
	@docker/run train "$$IMAGE" dvc exp run -S environment="$$IMAGE" $${EXPERIMENT:+-S "+experiment=$$EXPERIMENT"}

.PHONY: docker-repro-cpu
docker-repro-cpu: ## `make repro` in the image for the CPU
	@docker/build train cpu
	@GPUS= docker/run train cpu make --no-print-directory repro

.PHONY: docker-test
docker-test: ## `make test-all` in the image for the CPU
	@docker/build test cpu
	@GPUS= docker/run test cpu make --no-print-directory test-all

.PHONY: docker-shell
docker-shell: ## a shell in the image, on this working tree
	@docker/build train "$$IMAGE"
	@docker/run train "$$IMAGE" bash

.PHONY: docker-serve
docker-serve: ## answers over HTTP with MODEL=models/onnx on PORT=8080 of this machine
	@docker/build serve "$$IMAGE"
	@docker/run serve "$$IMAGE"

.PHONY: docker-build
docker-build: ## the images to train and to serve
	@docker/build train "$$IMAGE"
	@docker/build serve "$$IMAGE"

.PHONY: docker-digests
docker-digests: ## look the base's digest up and write it to docker/versions.env
	@docker/digests

##@ Azure

.PHONY: remote-azure
remote-azure: setup-azure ## URL=azure://container/path: DVC's remote; ACCOUNT=name with `az login`, STORE=1 keeps the key out of git
	@python -m tools.azure.remote $${ACCOUNT:+--account="$$ACCOUNT"} $(if $(STORE),--store) -- "$$URL"

.PHONY: push
push: setup-azure ## what the stages made to the remote in Azure, and no silence when it is down; ARGS="--run-cache ..."
	@$(WITH_ARGS) tools.azure.share push

.PHONY: pull
pull: setup-azure ## what the stages of this commit made, from the remote in Azure
	@$(WITH_ARGS) tools.azure.share pull

.PHONY: azure-publish
azure-publish: setup-azure ## NAME=tone: register the int4 model, card and figures in Azure ML; ARGS=--help lists where
	@$(WITH_ARGS) tools.azure.publish "$$NAME"

.PHONY: azure-submit
azure-submit: setup-azure ## EXPERIMENT=smoke ARGS="compute=gpu-cluster": a recipe on Azure ML's computers; ARGS="... --dry-run" only checks
	@$(WITH_ARGS) tools.azure.submit $${EXPERIMENT:+--experiment="$$EXPERIMENT"}

.PHONY: azure-fetch
azure-fetch: setup-azure ## JOB=name: what such a job has made, here
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
lint: setup-dev ## ruff, mypy and the list of words that tools/cli/english.py finds
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
	@cd requirements && for name in cpu search dev serve azure; do \
		$(COMPILE) --universal $(addprefix --no-emit-package ,$(CUDA_ONLY)) $$name.in --output-file $$name.txt || exit 1; done
	@cd requirements && for name in cuda13 cuda12 serve-cuda13 serve-cuda12; do \
		$(COMPILE) --python-platform x86_64-manylinux_2_28 $$name.in --output-file $$name.txt || exit 1; done

.PHONY: doctor
doctor: setup ## can the recipe run here? EXPERIMENT=phi3_mini_lora, or ARGS="build=cuda_int4 ...", asks about another
	@$(WITH_ARGS) tools.doctor $${EXPERIMENT:+"+experiment=$$EXPERIMENT"}

.PHONY: setup
setup: $(VENV)/.cpu ## the environment in .venv, exactly as requirements/cpu.txt says

.PHONY: setup-search
setup-search: $(VENV)/.search

.PHONY: setup-serve
setup-serve: $(VENV)/.serve

.PHONY: setup-dev
setup-dev: $(VENV)/.dev $(VENV)/.search $(VENV)/.serve $(VENV)/.azure $(if $(shell command -v npm),tests/azure/node_modules)

.PHONY: setup-azure
setup-azure: $(VENV)/.azure ## what rows, models, jobs and remotes in Azure need, on top

$(VENV)/.cpu: export PYTHON := $(PYTHON)
$(VENV)/.cpu: requirements/cpu.txt
	@"$$PYTHON" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@echo "making the environment in $(VENV), once"
	@"$$PYTHON" -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.cpu
$(VENV)/.search: requirements/search.txt $(VENV)/.cpu
$(VENV)/.serve: requirements/serve.txt $(VENV)/.cpu
$(VENV)/.azure: requirements/azure.txt $(VENV)/.cpu
$(VENV)/.dev $(VENV)/.search $(VENV)/.serve $(VENV)/.azure:
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

# Azurite: Azure Blob Storage on this machine.
tests/azure/node_modules: tests/azure/package-lock.json
	@npm ci --prefix tests/azure --silent
	@touch $@

.PHONY: clean
clean: ## remove the environment and what the stages made; DVC's cache stays
	rm -rf $(VENV) .checkpoints models data/collected data/prepared predictions report \
		$(filter-out metrics/summary.json metrics/speed.json,$(wildcard metrics/*))

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
