# Every target but `page` creates the virtual environment .venv if necessary. Only make and Python 3.11 or newer are needed;
# for `page`, Node 20 or newer.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint check docs bench tricks zoo frames measures modes detection reconstruction verdicts default server ranks gpu sizes scale feed workers finetuning smallsets translation critics parity peers align golden slow kills machines page clean

demo: $(READY)  ## train the default GAN on real digits and write a grid of samples
	$(BIN)/poise train

# the commands that tests run would otherwise compile every module anew where this variable is set; to rewrite assertions, so
# that they tell their values, takes fifteen seconds in a fresh clone, so this is done for tests that failed alone
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY)  ## all tests; takes minutes
	$(BIN)/python -m pytest -n 2 --dist worksteal --assert=plain || { $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; exit 1; }

lint: $(READY)  ## style and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

check: lint test  ## all checks that must pass before a commit is merged

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)  ## build the documentation into site/; a broken link or docstring is an error
	$(BIN)/mkdocs build --strict --quiet

bench: $(READY)  ## training speed, compared with hand-written loops
	$(BIN)/python benchmarks/throughput.py

tricks: $(READY)  ## the cost of each trick per step, two direct comparisons on toy data, and the exercises of learning GANs over five seeds
	$(BIN)/python benchmarks/tricks.py
	$(BIN)/python benchmarks/direct.py packing
	$(BIN)/python benchmarks/direct.py noise
	$(BIN)/python benchmarks/playground.py

gpu: $(READY)  ## checks and measures everything on one CUDA card; writes gpu-report.json and gpu-report.md
	$(BIN)/python benchmarks/gpu.py --out gpu-report

ranks: $(READY)  ## throughput of one rank per core beside that of one rank with all cores; minutes
	$(BIN)/python benchmarks/ranks.py

sizes: $(READY)  ## images per second and memory of DCGAN against its sizes; twenty minutes and 12 GB of disk
	$(BIN)/python benchmarks/sizes.py --write

scale: $(READY)  ## the operations of large runs, and the model of several ranks beside two ranks of this machine; ten minutes
	$(BIN)/python benchmarks/scale.py count
	$(BIN)/python benchmarks/scale.py check

feed: $(READY)  ## the time to open a million decoded images, and batches loaded beside a training step; 13 GB of disk, minutes
	$(BIN)/python benchmarks/feed.py

frames: $(READY)  ## how much slower a game in the plane is with frames; minutes on one core
	$(BIN)/python benchmarks/frames.py

zoo: $(READY)  ## train every image recipe over three seeds, as far as that is missing, and print the table; hours on two cores
	$(BIN)/python benchmarks/zoo.py train
	$(BIN)/python benchmarks/zoo.py train --colour

measures: $(READY)  ## which measures detect what, and the speed of the Frechet distance
	$(BIN)/python benchmarks/measures.py order
	$(BIN)/python benchmarks/measures.py frechet

modes: $(READY)  ## modes found on the ring and the grid over ten seeds, beside published results; an hour on one core
	$(BIN)/python benchmarks/modes.py ring
	$(BIN)/python benchmarks/modes.py grid

detection: $(READY)  ## study of the monitor: its detection rate on 351 small runs that are healthy, fail early or fail late; four hours on one core
	$(BIN)/python benchmarks/detection.py train detection
	$(BIN)/python benchmarks/detection.py replay detection --outcomes detection/outcomes.jsonl
	$(BIN)/python benchmarks/detection.py table --outcomes detection/outcomes.jsonl
	$(BIN)/python benchmarks/monitoring.py

reconstruction: $(READY)  ## an autoencoder and PCA, and the bound of a VAE on the complete MNIST in data/; half an hour on one core
	$(BIN)/python benchmarks/reconstruction.py pca
	$(BIN)/python benchmarks/reconstruction.py elbo --data-root data

verdicts: $(READY)  ## coverage of the intervals and rate of false verdicts on simulated studies; half an hour on one core
	$(BIN)/python benchmarks/verdicts.py simulate

default: $(READY)  ## the results behind the default recipe for a folder of images, as a table
	$(BIN)/python benchmarks/default_recipe.py table

server: $(READY)  ## the live page of a run of a million rows, and training while the page is open; half an hour on two cores
	$(BIN)/python benchmarks/web.py large
	$(BIN)/python benchmarks/web.py training

workers: $(READY)  ## how much faster two workers finish a study than one; minutes on two free cores
	$(BIN)/python benchmarks/study_workers.py

finetuning: $(READY)  ## fine-tuning on 100 images beside training from scratch; minutes on one core
	$(BIN)/python benchmarks/fine_tuning.py

smallsets: $(READY)  ## the default recipe on 60, 600 and 6,000 images of the folder IMAGES, and whether it copies them; half an hour
	$(BIN)/python benchmarks/small_sets.py "$(IMAGES)"

translation: $(READY)  ## pix2pix, CycleGAN and SimGAN on digits beside what they are compared with, over seeds; hours on one core
	$(BIN)/python benchmarks/translation.py pix2pix
	$(BIN)/python benchmarks/translation.py cyclegan
	$(BIN)/python benchmarks/translation.py simgan --seeds 5

critics: $(READY)  ## semi-adversarial and infogan beside the same without each of their parts, over seeds; an hour on one core
	$(BIN)/python benchmarks/critics.py semi-adversarial
	$(BIN)/python benchmarks/critics.py infogan

parity: $(READY)  ## StyleGAN2 and BigGAN beside their authors' code, in checkouts that POISE_STYLEGAN2 and POISE_BIGGAN name; minutes
	$(BIN)/python benchmarks/parity.py

peers: $(READY)  ## seconds of CPU until a target FID on digits, beside other GAN trainers, over seeds; hours on two cores
	$(BIN)/python benchmarks/time_to_quality.py digits --workers 2
	$(BIN)/python benchmarks/time_to_quality.py table

align: $(READY)  ## how often poise align finds the right map of clouds, of word vectors and of small sets; hours on one core
	$(BIN)/python benchmarks/align.py clouds
	$(BIN)/python benchmarks/align.py words
	$(BIN)/python benchmarks/align.py small

golden: $(READY)  ## record the golden runs again, after a change that is meant to alter training
	$(BIN)/python tests/training/test_golden.py

slow: $(READY)  ## the slow tests
	$(BIN)/python -m pytest -m slow

kills: $(READY)  ## of the slow tests, those that kill the processes and a node of a study; minutes
	$(BIN)/python -m pytest -m slow tests/study/test_kills.py tests/study/test_ray.py

machines: $(READY)  ## of the slow tests, those on two machines, which are network namespaces of this one; needs Linux, root and, for jobs and studies, slurm-wlm, munge and Ray; minutes
	$(BIN)/python -m pytest -m slow tests/training/test_two_machines.py tests/training/test_slurm.py tests/study/test_ray_machines.py

page:  ## build the live page from web/ into src/poise/web/static/, which is committed; needs Node 20 or newer
	npm --prefix web ci --no-audit --no-fund
	npm --prefix web run build

clean:
	rm -rf .venv site web/node_modules

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "poise needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
