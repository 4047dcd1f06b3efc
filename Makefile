# Two commands: `make demo` and `make test`. Both set up .venv first, from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test fuzz lint setup clean study study-train study-evaluate study-report

setup: $(STAMP)

# The lock pins torch and torchvision of one release: there is no CPU-only torchvision, and a CPU
# build of torch beside it fails at import. The stamp is written last: an interrupted set-up is redone.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit("picsnet needs Python 3.11 or 3.12, this is %d.%d; name one: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)
	$(BIN)/python -m picsnet.demo -o out/demo

# Files come in their order: else those of few tests come last, and the demo's runs for a minute alone.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# 100,000 damaged files, a few minutes on two cores; a summary, and the files that failed, in out/fuzz.
COUNT ?= 100000
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --count $(COUNT) -o out/fuzz

# The study: train the four lambdas on PHOTOS, evaluate them on DATA, write the report. Each part goes
# on where it stopped. TRAIN and EVALUATE take overrides, e.g. TRAIN="trainer.max_steps=20000".
STUDY ?= study
PHOTOS ?=
DATA ?=
TRAIN ?=
EVALUATE ?=
RUNS := runs/$(STUDY)
FIRST := $(RUNS)/sketch_ntc_lambda0.5/checkpoints/last.ckpt
LAMBDAS := 0.25 1.0 2.0
comma := ,
CKPTS := $(FIRST)$(foreach l,$(LAMBDAS),$(comma)$(RUNS)/sketch_ntc_lambda$(l)/checkpoints/last.ckpt)

study: study-train study-evaluate study-report

study-train: $(STAMP)
	@test -n "$(PHOTOS)" || { echo 'make study: name a folder of photographs to train on: PHOTOS=photos/' >&2; exit 2; }
	$(BIN)/python train.py --config sketch_ntc_lambda0.5.yaml 'data.photos=[$(PHOTOS)]' output=$(RUNS) logging.group=$(STUDY) $(TRAIN)
	$(foreach l,$(LAMBDAS),$(BIN)/python train.py --config sketch_ntc_lambda$(l).yaml 'data.photos=[$(PHOTOS)]' output=$(RUNS) logging.group=$(STUDY) init_from=$(FIRST) optim.lr=6e-4 $(TRAIN) &&) true

study-evaluate: $(STAMP)
	$(BIN)/python evaluate.py --config eval_study.yaml 'codecs.sketch.ckpt=[$(CKPTS)]' 'codecs.PICS.ckpt=[$(CKPTS)]' output=$(RUNS) logging.group=$(STUDY) $(if $(DATA),'dataset.folder=[$(DATA)]' 'dataset.name="$(notdir $(DATA:/=))"') $(EVALUATE)

study-report: $(STAMP)
	$(BIN)/picsnet report $(RUNS)/evaluation -o $(RUNS)/report

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
