# make train   learn CIFAR-10: rn18.yaml with a GPU, cpu.yaml without (ARGS="--train.epochs=2" changes settings)
# make test    run the tests (ARGS="tests/test_config.py" picks some)
# make slow    run those that take longer: a wheel in a fresh environment, kills, whole suites at tiny size
# make image   a Python with PyTorch 2.11, as machines with GPUs have it, into .image (2 GB): `make slow` then uses it
# make drill   kill, starve and damage runs, and count what is lost (ARGS="--share=0.1" is shorter)
# make check   ruff and mypy
# make gate    does the gate of compare.py pass equal suites and fail slower ones? (half an hour, idle)
# make faults  plant known faults, one at a time: does a test notice each? (minutes)
# make mutants change the code a little, a few hundred times: how many does a test notice? (an hour)
# make docs    the guide and the API reference as a site, build/site
# make notebook run examples/tour.ipynb anew, and keep what it shows
# make bench   measure this machine (ARGS="--suite quick" is the short one)
# Each sets up .venv first, which takes minutes once and nothing later.
PYTHON := .venv/bin/python
ARGS ?=

.PHONY: setup train test slow image drill gate check faults mutants docs bench tables notebook clean

setup:
	@scripts/setup.sh

# A later --config in ARGS wins. Synthetic images are drawn only when no data is found and none can be downloaded.
train: setup
	@recipe=$$($(PYTHON) -c "import torch; print('rn18.yaml' if torch.cuda.is_available() else 'cpu.yaml')") \
	&& $(PYTHON) scripts/train.py --config $$recipe --data.allow_synthetic=true $(ARGS)

# One thread a worker: the workers are what keeps the cores busy.
test:
	@scripts/setup.sh --browser
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow" $(ARGS)

slow: setup
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 2 --dist load --durations 8 -m slow $(ARGS)

image: setup
	@tests/image.sh

# Runs killed, starved of disk and handed damaged files: four to seven minutes on two cores.
drill: setup
	@$(PYTHON) -m tests.drill $(ARGS)

# Twenty trials with real suites, half an hour. Nothing else may run meanwhile.
gate: setup
	@OMP_NUM_THREADS=1 $(PYTHON) tests/gate_drill.py $(ARGS)

check: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check -q .
	@$(PYTHON) -m mypy

faults: setup
	@OMP_NUM_THREADS=1 $(PYTHON) tests/planted_faults.py $(ARGS)

mutants: setup
	@OMP_NUM_THREADS=1 $(PYTHON) tests/mutants.py $(ARGS)

# A warning is an error.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build -q --strict
	@echo "the site: build/site/index.html"

bench: setup
	@$(PYTHON) benchmarks/run.py --suite standard $(ARGS)

# What the README shows: recipes from their files, records and results from benchmarks/.
tables: setup
	@$(PYTHON) tests/test_readme.py
	@$(PYTHON) tests/house.py
	@$(PYTHON) tests/test_costs.py
	@$(PYTHON) tests/test_scaling.py
	@$(PYTHON) tests/test_picture.py
	@$(PYTHON) benchmarks/leaderboard.py

# The notebook with what it shows, on drawn images; needs the extra `notebook`.
notebook: setup
	@env -u FASTRESNET_DATA $(PYTHON) -m nbconvert --to notebook --execute --inplace examples/tour.ipynb

# Leaves .venv, data/ and runs/ alone.
clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find fastresnet scripts benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
