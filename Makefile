# The operator's commands. `make` alone prints them.
ENV ?= sandbox
PYTHON ?= python3
export PYTHON

# An inventory of this project is given by its name, one elsewhere by its path: it has a / in it, and is relative to this folder.
INVENTORY := $(if $(findstring /,$(ENV)),$(patsubst $(CURDIR)/%,%,$(patsubst ~/%,$(HOME)/%,$(ENV:/=))),inventories/$(ENV))
$(if $(wildcard $(INVENTORY))$(filter new,$(MAKECMDGOALS)),,$(error ENV=$(ENV): there is no $(INVENTORY). Set ENV to one of: $(notdir $(wildcard inventories/*)) $(patsubst %/hosts.yml,%,$(wildcard .sandbox/*/hosts.yml)), or to the folder of an inventory))
# Whether it is a sandbox host's. That of another application than the example (make try) says its own name and ports.
SANDBOX := $(wildcard $(INVENTORY)/group_vars/all/sandbox.yml)
TRIED := $(wildcard $(INVENTORY)/group_vars/all/try.yml)
STATE = $(if $(TRIED),$(INVENTORY)/.host,.sandbox/$(SANDBOX_NAME))
SECRETS = $(if $(SANDBOX),$(STATE)/secrets.yml,$(ENV))
# A sandbox host's secrets, where no host was booted that has them.
own_secrets = $(if $(SANDBOX),$(if $(wildcard $(SECRETS)),,mkdir -p $(STATE) && chmod 700 $(STATE) && bin/secrets make $(SECRETS) >/dev/null))
# Targets for sandbox hosts only, and for that of the example only.
only_sandbox = $(if $(SANDBOX),,$(error ENV=$(ENV): make $@ is for sandbox hosts only. Leave ENV out))
only_example = $(if $(filter-out sandbox,$(ENV)),$(error ENV=$(ENV): make $@ is for the example on the sandbox host only. Leave ENV out))
comma := ,
# Variables that count only on the command line, because the environment may have such names too.
given = $(foreach name,$(1),$(if $(filter command%,$(origin $(name))),'$(name)=$(subst ','\'',$(value $(name)))'))
# A variable of make as one of Ansible's, as text whatever is in it: JSON in single quotes.
extra = $(if $(filter command%,$(origin $(2))),-e '{"$(1)$(call lower,$(2))": "$(subst ','\'',$(subst ",\",$(subst \,\\,$(value $(2)))))"}')
lower = $(shell echo $(1) | tr A-Z a-z)
host = $(if $(filter command%,$(origin HOST)),$(HOST))

# The sandbox host's name and its ports on loopback.
ifneq ($(TRIED),)
its = $(shell sed -n 's/^sandbox_$(1): *//p' $(TRIED))
override SANDBOX_NAME := $(call its,name)
override SANDBOX_SSH_PORT := $(call its,ssh_port)
override SANDBOX_HTTPS_PORT := $(call its,https_port)
override SANDBOX_HTTP_PORT := $(call its,http_port)
endif
export SANDBOX_NAME ?= coldframe-sandbox
export SANDBOX_SSH_PORT ?= 2222
export SANDBOX_HTTPS_PORT ?= 8443
export SANDBOX_HTTP_PORT ?= 8080

# Ansible wants UTF-8, and LANG may name a locale that this machine does not have.
export LC_ALL := C.UTF-8
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Ansible's steps over one connection; ANSIBLE_STRATEGY=linear is plain Ansible.
export ANSIBLE_STRATEGY ?= mitogen_linear
export ANSIBLE_STRATEGY_PLUGINS ?= $(shell echo $(CURDIR)/.venv/lib/python3*/site-packages/ansible_mitogen/plugins/strategy)

# What decrypts the secrets of ENV, where `make secrets` made it; or name a file of your own.
VAULT_PASSWORD := $(if $(filter inventories/%,$(INVENTORY)),.vault/$(notdir $(INVENTORY)),$(INVENTORY)/.vault_pass)
ifneq ($(wildcard $(VAULT_PASSWORD)),)
export ANSIBLE_VAULT_PASSWORD_FILE ?= $(abspath $(VAULT_PASSWORD))
endif
# The packages that `make wheels` built, for app_packages_from: controller.
ifneq ($(wildcard $(INVENTORY)/.wheels),)
export PIP_FIND_LINKS := $(strip $(PIP_FIND_LINKS) $(abspath $(INVENTORY)/.wheels))
endif

.DEFAULT_GOAL := help
.PHONY: help setup browser system tools image sandbox sandbox-down try try-down dev dev-test dev-manage new lock wheels deploy doctor preflight check-app compose compose-up compose-down compose-test site rollback secrets rotate-secret status report unlock down verify ssh manage shell dbshell redis-cli run-task logs queues schedule maintenance test-alert lint lint-ansible lint-python lint-types lint-shell lint-secrets test-unit test-runtime test-versions check test-app test-hosts converged-release verified-release test-faults test-adopt test-tutorial test bench-deploy

help: ## Print this help
	@sed -nE 's/^([a-z%-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26
	@echo
	@echo "  ENV=sandbox             which of inventories/ (the default boots a host on this machine), or a folder: ENV=../mysite/deploy"
	@echo "  CMD='...'               with ssh, manage, shell, dbshell, redis-cli: the command; HOST=name runs it (or run-task) on that server"
	@echo "  DRY_RUN=1               with deploy, site, rollback, down, queues, maintenance: print what would change, and change nothing"
	@echo "  ALLOW_MIGRATIONS= ALLOW_QUEUES= ALLOW_TASKS= ALLOW_SHARED=  with deploy (ALLOW_QUEUES also with rollback): accept by name what would be refused"
	@echo "  VERBOSE=1               with deploy, site, rollback, preflight, check-app, down, sandbox: show every task"
	@echo "  THOROUGH=1              with test, test-hosts: also run slow tests that add little coverage"
	@echo "  ARGS='...'              further arguments of ansible-playbook, such as --check --diff or --limit"
	@echo "  SANDBOX_SSH_PORT=2222 SANDBOX_HTTPS_PORT=8443 SANDBOX_HTTP_PORT=8080 SANDBOX_NAME=coldframe-sandbox"

setup: .venv/.ready ## Build .venv with the controller's tools (other targets do it when needed)

.venv/.ready: requirements/uv.txt requirements/controller.txt bin/bootstrap
	@bin/bootstrap

# The tests open Flower's pages with it; a deploy does not need it.
browser: .venv/.browser ## Install Chromium and its driver, for the browser tests

.venv/.browser: .venv/.ready requirements/browser.txt bin/install-packages
	@bin/install-packages chromium
	@uv pip install --quiet --require-hashes --python .venv -r requirements/browser.txt
	@touch $@

.venv/.compose: .venv/.ready requirements/compose.txt
	@uv pip install --quiet --require-hashes --python .venv -r requirements/compose.txt
	@touch $@

system: ## Install the Debian packages that the other targets need, such as podman
	@bin/install-packages

# The slow steps of the first use, in parallel.
tools: ## Build .venv and the host image, in parallel
	@$(MAKE) --silent --jobs=2 .venv/.ready image

image: system ## Build the image of the sandbox host
	@docker/host/build >/dev/null

sandbox: tools ## Boot the sandbox host, without deploying
	@$(only_sandbox)bin/sandbox-is-up $(STATE) || ansible-playbook -i $(INVENTORY) playbooks/sandbox.yml

sandbox-down: .venv/.ready ## Remove the sandbox host with all its data
	@$(only_sandbox)ansible-playbook -i $(INVENTORY) playbooks/sandbox_down.yml

try: .venv/.ready ## Deploy a project, APP=../mysite, to a sandbox host of its own; builds packages that have no wheel
	@bin/try $(call given,APP NAME SETTINGS WSGI CELERY REQUIREMENTS SANDBOX_SSH_PORT SANDBOX_HTTPS_PORT SANDBOX_HTTP_PORT)

try-down: .venv/.ready ## Remove the sandbox host of APP=../mysite with all its data
	@bin/try down $(call given,APP)

# The words of a command: neither make nor a shell may change them.
dev-manage: export COLDFRAME_COMMAND = $(value CMD)
OF_PROJECT = ENV APP VENV NAME SETTINGS WSGI CELERY REQUIREMENTS
dev: .venv/.ready ## Run the application of ENV, or APP=../mysite, on this machine as the servers do; reloads changed code. PORT= EAGER=1 VENV=
	@bin/dev $@ $(ENV) playbooks/dev.yml $(call given,PORT EAGER $(OF_PROJECT))

dev-test: .venv/.ready ## Run the tests of the application of ENV, or APP=../mysite, with the services of make dev; ARGS='...' are theirs
	@bin/dev $@ $(ENV) playbooks/dev.yml $(call given,ARGS $(OF_PROJECT))

dev-manage: .venv/.ready ## Run a command of manage.py, CMD="createsuperuser", with the services of make dev
	@bin/dev $@ $(ENV) playbooks/dev.yml $(call given,$(OF_PROJECT))

new: .venv/.ready ## Write the inventory ENV=production for a project, APP=../mysite; asks for HOST, USER and DOMAIN
	@bin/new $(call given,ENV APP HOST USER DOMAIN NAME SETTINGS WSGI CELERY REQUIREMENTS DEBIAN)

lock: .venv/.ready ## Lock the packages of the application of ENV again, if its requirements changed; UPGRADE=1 takes the newest
	@bin/lock $(call given,ENV UPGRADE DEBIAN REQUIREMENTS)

wheels: tools ## Build the packages that have no wheel for the servers of ENV, in a container, and lock again
	@bin/wheels $(call given,ENV DEBIAN)

HOSTS = $(if $(SANDBOX),sandbox,.venv/.ready)
PLAYBOOK = ansible-playbook -i $(INVENTORY) $(if $(DRY_RUN),--check --diff)

# A line for each play in place of each task; VERBOSE=1, or -v in ARGS, shows Ansible's own output.
ifeq ($(VERBOSE),)
deploy site rollback preflight check-app down sandbox sandbox-down: export ANSIBLE_STDOUT_CALLBACK ?= coldframe_short
endif

deploy: $(HOSTS) ## Bring the servers of ENV up to date, and test that they work
	@$(PLAYBOOK) playbooks/deploy.yml $(if $(ALLOW_MIGRATIONS),-e release_allow_migrations=$(ALLOW_MIGRATIONS)) $(if $(ALLOW_QUEUES),-e release_allow_queues=$(ALLOW_QUEUES)) $(call extra,release_,ALLOW_TASKS) $(if $(ALLOW_SHARED),-e release_allow_shared=$(ALLOW_SHARED)) $(ARGS)

doctor: .venv/.ready ## Check this machine and the servers of ENV before a first deploy, and change nothing
	@bin/doctor $(INVENTORY) playbooks/doctor.yml $(ARGS)

preflight: $(HOSTS) ## Check the servers and variables of ENV before a deploy, and change nothing
	@$(PLAYBOOK) playbooks/preflight.yml $(ARGS)

check-app: .venv/.ready ## Check the application of ENV on this machine, before any server is touched; DEBIAN=12 for its Python
	@$(own_secrets)
	@$(PLAYBOOK) playbooks/check_app.yml $(if $(DEBIAN),-e check_debian=$(DEBIAN)) $(ARGS)

# The words of make new, of which `make try` has some, and what belongs to the stack. COMPOSE_BASE comes from the environment, too.
COMPOSE_WORDS = $(call given,APP NAME SETTINGS WSGI CELERY REQUIREMENTS DEBIAN COMPOSE_NAME COMPOSE_HTTPS_PORT REMOVE_DATA)
compose compose-up: export COMPOSE_BASE ?=

compose: .venv/.ready ## Write the stack of ENV in containers, or of a project, APP=../mysite, into .compose/; DEBIAN=12 for its Python
	@$(if $(call given,APP),,$(own_secrets))
	@bin/compose write $(abspath $(INVENTORY)) playbooks/compose.yml $(COMPOSE_WORDS)

compose-up: .venv/.compose ## Build and start the stack of ENV, or of APP=../mysite, in containers, and wait until it is healthy
	@bin/compose up $(abspath $(INVENTORY)) playbooks/compose.yml $(COMPOSE_WORDS)

compose-down: .venv/.compose ## Stop the stack of ENV, or of APP=../mysite, and remove its containers; REMOVE_DATA=1 also its data
	@bin/compose down $(abspath $(INVENTORY)) playbooks/compose.yml $(COMPOSE_WORDS)

compose-test: .venv/.compose ## Test the stack of ENV, or of APP=../mysite, that runs: restarts its services
	@bin/compose test $(abspath $(INVENTORY)) playbooks/compose.yml $(COMPOSE_WORDS)

site: $(HOSTS) ## Deploy, and converge every host: reverts manual changes
	@$(PLAYBOOK) playbooks/site.yml $(ARGS)

rollback: .venv/.ready ## Roll back to the previous release, or to RELEASE=id
	@$(PLAYBOOK) playbooks/rollback.yml $(if $(RELEASE),-e release_rollback_to=$(RELEASE)) $(if $(ALLOW_QUEUES),-e release_allow_queues=$(ALLOW_QUEUES)) $(ARGS)

secrets: .venv/.ready ## Create the secrets of ENV, random and encrypted; existing ones are kept. One of your own: SET=NAME, UNSET=, SHOW=
	@bin/secrets make $(SECRETS) $(call given,SET UNSET SHOW)

rotate-secret: $(HOSTS) ## Change a secret while everything runs: NAME=database_password, redis_web, ..., all
	@$(if $(DRY_RUN),$(error DRY_RUN=1: the change of a secret cannot be tried. Leave DRY_RUN out))
	@bin/secrets begin $(SECRETS) $(or $(NAME),"")
	@$(PLAYBOOK) playbooks/deploy.yml $(ARGS)
	@$(PLAYBOOK) playbooks/wait_for_drain.yml $(ARGS)
	@bin/secrets finish $(SECRETS) $(NAME)
	@$(PLAYBOOK) playbooks/deploy.yml $(ARGS)

status: .venv/.ready ## Print what runs where, what drains, which releases are kept, and who deployed what when
	@$(PLAYBOOK) playbooks/status.yml $(ARGS)

report: .venv/.ready ## Print what the newest deploy or rollback did, or that of RELEASE=id, and whether its signature is right
	@$(PLAYBOOK) playbooks/report.yml $(if $(RELEASE),-e release_report_of=$(RELEASE)) $(ARGS)

unlock: .venv/.ready ## Remove a deploy lock; make sure that the deploy has ended
	@$(PLAYBOOK) playbooks/unlock.yml $(ARGS)

# A dry run is not asked.
down: .venv/.ready ## Remove the application of ENV from its servers with all its data; asks for its name, or takes CONFIRM=name
	@$(PLAYBOOK) playbooks/down.yml $(if $(DRY_RUN),-e down_confirm=,$(if $(filter command%,$(origin CONFIRM)),-e down_confirm='$(subst ','\'',$(CONFIRM))')) $(ARGS)

verify: .venv/.ready ## Check the running servers of ENV with read-only host tests
	@bin/verify $(ENV)

# The words of a command: neither make nor a shell may change them.
ssh manage shell dbshell redis-cli: export COLDFRAME_COMMAND = $(value CMD)
ssh: $(if $(filter sandbox,$(ENV)),,.venv/.ready) ## Open a root shell on a server of ENV (HOST=name if there are several), or run CMD="systemctl status"
	@bin/ssh $(ENV) $(host)

# bin/operate asks the playbook how the servers are reached.
manage: .venv/.ready ## Run a command of manage.py on a server of ENV: CMD="createsuperuser"; with DJANGO_* of the environment
	@bin/operate $@ $(ENV) playbooks/servers.yml $(call given,HOST)

shell: .venv/.ready ## Open Django's shell on a server of ENV
	@bin/operate $@ $(ENV) playbooks/servers.yml $(call given,HOST)

dbshell: .venv/.ready ## Open psql as the owner of the application's database; ADMIN=1 as the administrator, after a question
	@bin/operate $@ $(ENV) playbooks/servers.yml $(call given,HOST ADMIN CONFIRM)

redis-cli: .venv/.ready ## Open redis-cli as a user that may only read; INSTANCE=cache; ADMIN=1 as the administrator, after a question
	@bin/operate $@ $(ENV) playbooks/servers.yml $(call given,HOST INSTANCE ADMIN CONFIRM)

run-task: .venv/.ready ## Send a task by hand: TASK=app.tasks.report TASK_ARGS='[1]' TASK_KWARGS='{"to": "a"}' QUEUE= WAIT=60 (print its result); without TASK list them
	@bin/operate $@ $(ENV) playbooks/servers.yml $(call given,HOST TASK TASK_ARGS TASK_KWARGS QUEUE WAIT)

logs: .venv/.ready ## Print the logs of all servers of ENV in order: UNIT=worker-mail HOST= SINCE=-1h GREP= PRIORITY=err ID= FOLLOW=1
	@bin/logs $(ENV) playbooks/servers.yml $(call given,UNIT HOST SINCE GREP PRIORITY ID FOLLOW)

queues: .venv/.ready ## Print what the queues hold. After a question: PAUSE=queue, RESUME=queue, RETRY=queue (dead letters), PURGE=task QUEUE=queue
	@$(PLAYBOOK) playbooks/queues.yml $(foreach name,PAUSE RESUME RETRY PURGE QUEUE CONFIRM,$(call extra,queues_,$(name))) $(ARGS)

schedule: .venv/.ready ## Print what Beat will send in the next 24 hours, by queue, which entries collide, and which point at nothing
	@$(PLAYBOOK) playbooks/schedule.yml $(ARGS)

maintenance: .venv/.ready ## Show visitors a page in place of the site, STATE=on or off: PAGE=page.html ALLOW=10.0.0.0/8,192.0.2.7 get the site
	@$(PLAYBOOK) playbooks/maintenance.yml $(foreach name,STATE ALLOW PAGE,$(call extra,maintenance_,$(name))) $(ARGS)

test-alert: .venv/.ready ## Send a test message by each channel of alerts_*, and print what each answered
	@$(PLAYBOOK) playbooks/test_alert.yml $(ARGS)

# These run in parallel, and all of them report, even if one fails. The longest start first.
LINTS = lint-ansible lint-types lint-python lint-shell lint-secrets
BESIDE = --no-print-directory --jobs=2 --keep-going --output-sync=target

check: .venv/.ready ## Run linters, types and unit tests, without a host (some minutes)
	@{ command -v redis-server || command -v redis-check-rdb; } >/dev/null || bin/install-packages --only redis-tools # before tests use apt, too
	@$(MAKE) $(BESIDE) test-unit lint-ansible test-runtime $(filter-out lint-ansible,$(LINTS))

lint: .venv/.ready ## Run all linters
	@$(MAKE) $(BESIDE) $(LINTS)

lint-ansible: .venv/.ready ## Step of lint: ansible-lint on roles and playbooks
	@ansible-lint --offline -q

lint-types: .venv/.ready ## Step of lint: mypy on plugins and runtime
	@mypy --no-error-summary

lint-python: .venv/.ready ## Step of lint: ruff, style and format
	@ruff check .
	@ruff format --check .

lint-shell: .venv/.ready ## Step of lint: shellcheck on shell scripts
	@bin/check-shell-scripts

lint-secrets: .venv/.ready ## Step of lint: detect-secrets on tracked files
	@git ls-files -z ':!*requirements*.txt' ':!molecule/*/projects/*' | xargs -0 detect-secrets-hook --no-verify --exclude-secrets '^scram-sha-256$$' || \
		{ echo "A tracked file has a secret: remove it. Mark a false positive with '# pragma: allowlist secret'." >&2; exit 1; }

test-unit: .venv/.ready ## Run unit tests and house rules, without a host
	@! command -v dpkg-query >/dev/null || bin/install-packages --only redis-tools postgresql
	@pytest -q --numprocesses=2 --dist=loadfile tests

test-runtime: .venv/.ready ## Run the tests of the runtime, with the newest versions of Celery and kombu
	@bin/test-runtime

VERSIONS ?= molecule/versions/*.txt
test-versions: .venv/.ready ## Run the tests of the runtime with the older versions of Celery and kombu
	@mkdir -p .cache
	@bin/test-runtime $(VERSIONS) $(call log_as,versions)

test-app: sandbox ## Run the example application's own tests, against PostgreSQL and Redis on the sandbox host
	@$(only_example)ansible-playbook -i inventories/sandbox playbooks/test_app.yml

# Scenarios run in parallel: prefix each line with the name of its scenario.
log_as = 2>&1 | sed -u 's/^/$(1): /' | tee -a .cache/scenario-$(1).log
test-hosts test-versions converged-release verified-release scenario-%: SHELL = /bin/bash
test-hosts test-versions converged-release verified-release scenario-%: .SHELLFLAGS = -o pipefail -c

# Wide enough that the line with a failed test's name is not broken.
test-hosts: export COLUMNS = 200
test-hosts: export ADOPT ?= clinic,press
test-hosts: tools browser ## Run the Molecule scenarios except `faults`, `chat`, `shared` and `tutorial`, `adopt` with two projects; `release`, the load test, runs by itself
	@mkdir -p .cache; rm -f .cache/scenario-*.log
	@$(MAKE) --no-print-directory --jobs=3 scenario-default scenario-cluster scenario-deploys $(BESIDE_SCENARIOS) scenario-adopt converged-release && $(MAKE) --no-print-directory verified-release || \
		{ molecule destroy -s release >/dev/null 2>&1; \
		echo "What failed:"; sed 's/\x1b\[[0-9;]*m//g' .cache/scenario-*.log | grep -E ': [ │]*E  ' | tail -40; \
		sed 's/\x1b\[[0-9;]*m//g' .cache/scenario-*.log | grep -E '(FAILED|ERROR) .*\.py::|: fatal: \[|CRITICAL'; exit 1; }
	@molecule destroy -s release

# Its host is created while another scenario still runs.
converged-release: .venv/.ready ## Step of test-hosts: create and converge `release`
	@{ molecule destroy -s release && molecule converge -s release; } $(call log_as,release)

verified-release: .venv/.ready ## Step of test-hosts: run the tests of `release`
	@molecule verify -s release $(call log_as,release)

# The environment is how Molecule's playbooks and tests learn of these.
test-faults: export ORDERS ?= 20000
test-faults: export WITHOUT ?=
test-faults: tools ## Run the scenario `faults` in full, with 20,000 orders (ORDERS=); writes bench/README.md. WITHOUT=sweep disables a protection
	@$(MAKE) --no-print-directory scenario-faults
	@$(if $(WITHOUT),,bench/faults)

# The environment is how Molecule's playbooks and tests learn of these.
PROJECTS = clinic press mysite weblate cookiecutter chat
test-adopt: export ADOPT ?= $(subst $(subst ,, ),$(comma),$(PROJECTS))
test-adopt: export COOKIECUTTER ?=
test-adopt: asked = $(subst $(comma), ,$(ADOPT))
test-adopt: tools ## Deploy projects that know nothing of Coldframe to sandbox hosts; ADOPT=clinic,weblate chooses, COOKIECUTTER=folder of the template
	@$(if $(filter-out $(PROJECTS),$(asked)),$(error ADOPT=$(ADOPT): there is no $(filter-out $(PROJECTS),$(asked)). Set it to some of $(PROJECTS), with commas between))
	@$(MAKE) --no-print-directory $(if $(filter-out chat,$(asked)),scenario-adopt) $(if $(filter chat,$(asked)),scenario-chat)

test-tutorial: tools ## Run the commands of docs/your-app.md word for word, in a copy of this checkout and with a host as the server
	@$(MAKE) --no-print-directory scenario-tutorial

scenario-%: .venv/.ready ## Step of test-hosts, test-faults, test-adopt and test-tutorial: run one Molecule scenario, such as scenario-default
	@mkdir -p .cache
	@molecule test -s $* $(call log_as,$*)

# The oldest versions take their turn beside a scenario: they lack most, and so need all that the runtime has for others. With
# THOROUGH=1 these are all older versions.
test: export BESIDE_SCENARIOS = test-versions
test: export VERSIONS = molecule/versions/$(if $(THOROUGH),*,*54-kombu54).txt
test: browser check test-hosts ## Run check, test-versions and test-hosts

bench-deploy: tools ## Measure deploys and rollbacks on hosts of their own, 1 to 8; writes bench/README.md
	@bench/deploy
