# The whole of it: `make run` on a fresh Debian 12, `make test`, `make check`. `make help` lists the rest.

SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
PREFIX ?= /usr/local
DESTDIR ?=
# Whose members may use Docker's socket.
GROUP ?= $(if $(DESTDIR),biga,$(shell getent group docker >/dev/null && echo docker || echo biga))

.DEFAULT_GOAL := help
.PHONY: help setup build run stop test test-v2 test-guest doctest check fmt bench install uninstall clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and running needs (Debian packages, Rust, nextest)
	@scripts/setup

build: setup ## Build the program: target/release/biga
	cargo build --release --package biga

run: build ## Start a container, a microvm and a machine on one network, and show them
	@scripts/tour

stop: ## Stop what `make run` started and leave the host as it was
	@scripts/tour-stop

test: setup doctest ## Run all tests (as root: they make containers, networks and guests)
	@scripts/setup-criu
	@scripts/setup-dockerd
	@scripts/setup-compose
	@scripts/setup-buildx
	cargo nextest run --workspace

test-v2: setup ## Run the tests of containers again, in a microvm that Biga boots (cgroup v2, AppArmor, kernel 6.1)
	@scripts/guest-tests

test-guest: setup ## Run these and more in a Debian 12 machine that Biga boots (systemd; half an hour and more)
	@scripts/guest-suite

doctest:
	@scripts/doctests

check: setup ## Formatting, lints, and the repository's own rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask check

fmt: ## Format the source
	cargo fmt --all

bench: build ## Measure beside a floor program and what runtimes are installed
	@scripts/setup-dockerd
	@scripts/bench

install: build ## Install to PREFIX (/usr/local): programs, systemd units, bash completion
	install -D -m 755 target/release/biga $(DESTDIR)$(PREFIX)/bin/biga
	install -m 755 target/payload/x86_64-unknown-linux-gnu/payload/biga-oci $(DESTDIR)$(PREFIX)/bin/biga-oci
	install -d $(DESTDIR)/etc/systemd/system $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -D -m 644 dist/biga.sysusers $(DESTDIR)/usr/lib/sysusers.d/biga.conf
	test -n "$(DESTDIR)" || getent group biga >/dev/null || groupadd --system biga
	for unit in biga.service biga.socket; do \
		sed 's|@PREFIX@|$(PREFIX)|g; s|@GROUP@|$(GROUP)|g' dist/$$unit >$(DESTDIR)/etc/systemd/system/$$unit && \
		chmod 644 $(DESTDIR)/etc/systemd/system/$$unit || exit 1; \
	done
	target/release/biga completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/biga
	@echo "Installed; members of the group $(GROUP) may use Docker's socket."
	@echo "Start it: systemctl daemon-reload && systemctl enable --now biga; fetch the kernel of microvms: biga setup"

uninstall: ## Remove what `make install` installed; state in /var/lib/biga and the group biga stay
	rm -f $(DESTDIR)$(PREFIX)/bin/biga $(DESTDIR)$(PREFIX)/bin/biga-oci $(DESTDIR)/usr/lib/sysusers.d/biga.conf
	rm -f $(DESTDIR)/etc/systemd/system/biga.service $(DESTDIR)/etc/systemd/system/biga.socket
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/biga

clean: ## Remove everything built
	cargo clean
