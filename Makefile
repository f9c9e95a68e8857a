# SPDX-License-Identifier: Apache-2.0
.PHONY: help install demo test e2e check generate clean

help: ## Show the targets
	@grep -hE '^[a-z0-9]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/: .*## /\t/' | expand -t 12

install: ## Install everything into .venv (uv, locked)
	scripts/install dev

demo: ## Train, gate, serve and explain on MovieLens-100K
	scripts/demo

test: ## Install, run every check and every test
	scripts/test

e2e: ## Only the whole way, on the laptop's driver and on a real Kubernetes node
	scripts/test tests/e2e

check: ## Lint, format, types, architecture, generated files
	scripts/check

generate: ## Write the generated CRDs and reference pages anew
	scripts/generate

clean: ## Remove the demo's state (not the caches)
	rm -rf examples/movielens/.thinkrec examples/movielens/data
