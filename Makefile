# baton: `make start` runs it, `make test` proves it, `make help` lists the rest.
#
# Nothing here needs more than Go, gcc and make. The data directory and the
# address are baton's own: BATON_DATA, BATON_LISTEN, BATON_WORKERS.

GO ?= go
FUZZTIME ?= 10s
PARSER_FUZZTIME ?= 60s
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build

# The Go that is installed is the Go that is used: no toolchain is downloaded.
export GOTOOLCHAIN := local

# The commit is stamped into the binary where git can tell it.
BUILDVCS := $(shell git rev-parse -q --verify HEAD >/dev/null 2>&1 && echo auto || echo false)
DATA = $${BATON_DATA:-./data}

# The demo functions: one WASI module, embedded into the binary.
DEMO := cmd/baton/bundled/demo.wasm
DEMO_SOURCES := $(filter-out %_test.go,$(wildcard examples/demo/*.go deploy/gomodule/*.go \
	runtime/wasm/gowrap/*.go internal/tools/gomodule/*.go))

# With the race detector. The WebAssembly specification's suite is left out: it
# is minutes of compiling on one goroutine.
RACE := -race -timeout 20m -skip ^TestSpecSuite ./...

.PHONY: help build init start stop clean check format vet lint generated test race fuzz golden \
	bench bench-full bench-quick bench-analyse bench-smoke goversion

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

build: $(DEMO) ## bin/baton (the default)
	@$(GO) build -buildvcs=$(BUILDVCS) -trimpath -o bin/baton ./cmd/baton

$(DEMO): $(DEMO_SOURCES) go.mod | goversion
	@mkdir -p $(@D)
	@$(GO) run ./internal/tools/gomodule examples/demo $@

goversion:
	@scripts/goversion $(GO)

init: build ## create the data directory (./data or $BATON_DATA)
	@bin/baton init

start: build ## build, create the data directory when there is none, serve until Ctrl-C
	@test -e "$(DATA)/faas_meta.db" || bin/baton init
	@exec bin/baton serve

stop: ## stop exactly the processes of this data directory
	@test -x bin/baton || $(MAKE) build
	@bin/baton stop

clean: ## remove what was built; data stays
	@rm -rf bin $(DEMO)

check: build ## all that a commit needs beside the tests: format, vet, lint, generated files
	@$(MAKE) format vet lint generated

format:
	@scripts/format

vet: $(DEMO)
	@$(GO) vet ./...

lint: $(DEMO) ## staticcheck, the import table and the banned words
	@$(GO) tool staticcheck ./...
	@$(GO) test -count=1 ./internal/lint

generated:
	@scripts/generated $(GO)

test: build ## install what the tests need, then unit, fuzz seeds, integration, and all again with -race
	@scripts/deps
	@$(GO) run ./internal/tools/testsum -skips scripts/skips -- ./... -- $(RACE)

race: $(DEMO) ## the tests with the race detector only
	@$(GO) run ./internal/tools/testsum -skips scripts/skips -- $(RACE)

fuzz: $(DEMO) ## every fuzz target for FUZZTIME (10s), the parser's for PARSER_FUZZTIME (60s)
	@scripts/fuzz $(GO) $(FUZZTIME) $(PARSER_FUZZTIME)

golden: $(DEMO) ## rewrite the expected outputs in testdata; read the diff as code
	@BATON_GOLDEN=1 $(GO) test -count=1 -run 'Script|Golden' ./...

bench: build ## the workloads of PERFORMANCE.md beside what people would pick instead, under ten minutes
	@scripts/deps bench
	@$(GO) run ./bench/cmd

bench-full: build ## every workload and every peer
	@scripts/deps bench
	@$(GO) run ./bench/cmd -full

bench-quick: build ## the same, short and without records
	@$(GO) run ./bench/cmd -quick

bench-analyse: ## the table of the last recorded run, without running anything
	@$(GO) run ./bench/cmd -analyse

bench-smoke: $(DEMO) ## every Go benchmark once, so that none rots
	@$(GO) test -run '^$$' -bench . -benchtime 1x ./...
