# Two commands: `make demo` runs the main job, `make test` checks everything. Both set themselves up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
TORCH := 2.13.0
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test lint torture bench-movielens bench-speed bench-arc bench-news bench-peers bench-peers-setup bench-rates bench-tuning bench-check bench-soak clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/python scripts/demo.py

# A worker for each core, each with files of its own, for tests of a file share what they have fitted; in the order of the folders, which
# has the long ones first.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench-movielens: $(VENV)/.demo
	$(BIN)/python -m benchmarks.movielens.run

# Every figure of benchmarks/speed and one table of them; SMALL=1: small sizes, in about five minutes. ONLY=softmax,search
NEEDS_PEERS := $(if $(ONLY),$(findstring training,$(ONLY)),all)
bench-speed: $(VENV)/.bench $(if $(NEEDS_PEERS),bench-peers-setup)
	$(BIN)/python -m benchmarks.speed.run $(if $(SMALL),--small) $(if $(ONLY),--only $(ONLY))

# Raw tables of Scientific -> tuned, judged, indexed, first answer served, and where the seconds went.
bench-arc: $(VENV)/.demo
	$(BIN)/python -m benchmarks.arc.run

# kill -9 at KILLS random moments of ingest, upserts, updates and swaps; the same command goes on where it was stopped.
torture: $(VENV)/.demo
	$(BIN)/python -m benchmarks.torture.run $(if $(KILLS),--kills $(KILLS)) $(if $(SECONDS),--seconds $(SECONDS))

# Ten minutes of load: does memory stay where it is?
bench-soak: $(VENV)/.demo
	$(BIN)/python -m benchmarks.speed.serve.soak

# lmrec beside its rivals (benchmarks/peers). Hours; what was found is kept in benchmarks/peers/results, so the same command goes
# on where it was stopped, on any machine. Choices: DATASET=amazon-scientific PROTOCOL=P1 SYSTEMS=rivals SEEDS=3 TRIALS=6 OUTSIDE_TRIALS=6 EPOCHS=15 SMALL=1
# MINUTES=8 SET="training.tuned_epochs=0" RESULTS=DIR (an empty folder: everything anew)
bench-peers: $(VENV)/.demo bench-peers-setup
	$(BIN)/python -m benchmarks.peers $(if $(DATASET),--dataset $(DATASET)) $(if $(PROTOCOL),--protocol $(PROTOCOL)) \
	  $(if $(SYSTEMS),--systems $(SYSTEMS)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(TRIALS),--trials $(TRIALS)) $(if $(OUTSIDE_TRIALS),--outside-trials $(OUTSIDE_TRIALS)) $(if $(EPOCHS),--epochs $(EPOCHS)) \
	  $(if $(SMALL),--small) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RESULTS),--results $(RESULTS)) $(foreach choice,$(SET),--set $(choice))

# The order of what was shown (P3), MIND in English and in Chinese, several seeds: ten minutes of a core each. LANGUAGE=zh SEEDS=1
bench-news: $(VENV)/.demo
	$(BIN)/python -m benchmarks.news $(if $(LANGUAGE),--language $(LANGUAGE)) $(if $(SEEDS),--seeds $(SEEDS))

# What each technique of docs/tuning costs, one row a technique, then the same question with fewer labels: hours. What each fit found is kept in
# benchmarks/tuning/results, so the same command goes on where it was stopped, on any machine. SMALL=1: every row on a part of
# the users, in about 15 minutes of two quick cores. DATASET=amazon-scientific SEEDS=3 SEED=1 (this one alone) ROW="fgm" (that row and plain alone)
# MINUTES=60 (each of its commands begins no fit after that) TABLE=1 (fit nothing: table and picture of what is there). Without DATASET MovieLens and, where
# LMREC_DATA has it, Scientific; SMALL=1 MovieLens alone
TUNED := $(or $(DATASET),movielens-100k $(if $(SMALL),,$(notdir $(wildcard $(or $(LMREC_DATA),../shared/data)/amazon-scientific))))
TUNING_ON = $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) $(if $(SMALL),--small) $(if $(MINUTES),--minutes $(MINUTES))
bench-tuning: $(VENV)/.dev
	$(foreach data,$(TUNED),$(if $(ROW)$(TABLE)$(SMALL),,$(BIN)/python -m benchmarks.tuning.costs --dataset $(data) &&) \
	  $(BIN)/python -m benchmarks.tuning.run --dataset $(data) $(TUNING_ON) $(if $(ROW),--only "$(ROW)") $(if $(TABLE),--table) && \
	  $(if $(ROW),,$(BIN)/python -m benchmarks.tuning.fewer_labels --dataset $(data) $(TUNING_ON) $(if $(TABLE),--chart) &&)) true

# What validation says of the language model's learning rate, 1e-6 to 1e-3, with its picture: a fit for each rate and seed.
bench-rates: $(VENV)/.demo
	$(BIN)/python -m benchmarks.tuning.learning_rates $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SMALL),--small)

# A small part again, against benchmarks/expected.toml: counts, vectors of words and a short fit, in minutes. MovieLens is fetched; of
# LMREC_DATA what is not there is skipped, said at the end. Exit 0: all that was measured is as expected.
bench-check: $(VENV)/.demo
	$(BIN)/python -m benchmarks.peers.check

# RecTools wants an older numpy, so it lives apart from lmrec.
PEERS_VENV := benchmarks/peers/.venv
bench-peers-setup: $(PEERS_VENV)/.done
$(PEERS_VENV)/.done: benchmarks/peers/requirements.txt
	test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/pip --disable-pip-version-check install -q "$(TORCH_SPEC)" \
	  || $(PEERS_VENV)/bin/pip --disable-pip-version-check install -q torch==$(TORCH)
	$(PEERS_VENV)/bin/pip --disable-pip-version-check install -q -r benchmarks/peers/requirements.txt
	@touch $@

# The CPU build of torch, which is a tenth of the CUDA one: from what pip knows, else from PyTorch's own index.
# With a GPU: make demo TORCH_SPEC=torch==2.13.0
TORCH_SPEC ?= torch==$(TORCH)+cpu
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("lmrec needs Python 3.11 or newer; say which: make demo PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q "$(TORCH_SPEC)" \
	  || $(PIP) install -q "$(TORCH_SPEC)" --extra-index-url https://download.pytorch.org/whl/cpu \
	  || $(PIP) install -q torch==$(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install -q -c constraints.txt -e '.[tensorboard,service]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt -e '.[tensorboard,service,dev]'
	@touch $@

# What figures are held against.
$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install -q -c constraints.txt -e '.[tensorboard,service,dev,bench]'
	@touch $@

clean:
	rm -rf $(VENV) runs dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
