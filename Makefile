# Everything that is done to this project more than once. `make` alone prints the list.

GO    ?= go
TOOLS := $(GO) tool -modfile=tools.mod

# With the race detector, and without what only a debugger reads, which takes a fifth of the time of building. The inner loop of bcrypt
# shares nothing and would run ten times as long under the detector. test builds the program first, or tests of several packages would do so
# at once; and it begins with the store, whose tests wait for servers that fail over, while those of other packages have something to do.
RACE = -race -ldflags=-w -gcflags=all=-dwarf=false -gcflags=golang.org/x/crypto/blowfish=-race=false

# Packages whose tests start other programs or a whole gateway; make check leaves them to make test.
WHOLE = $(shell grep -rlE 'storetest\.Redis|gatewaytest\.|chromedp|browsertest\.|oathtool|package artefacts|package snippet_test' --include='*_test.go' . | xargs -r -n 1 dirname | sort -u | sed 's,^\.,gatehouse,')

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/gatehouse: one static file
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/gatehouse ./cmd/gatehouse

.PHONY: deps
deps: ## install the programs that the tests start (apt; root or sudo)
	@.ci/packages

.PHONY: test
test: deps build ## run every test, with the race detector; what the build server runs
	@$(GO) test $(RACE) -timeout 15m -p 3 ./store/redisstore ./...

.PHONY: check
check: ## format, vet, lint, rules of the house and the tests that need no other program: under two minutes
	@unformatted=$$($(TOOLS) gofumpt -l .); test -z "$$unformatted" || { echo "not formatted (gofumpt -w):"; echo "$$unformatted"; exit 1; }
	@$(GO) vet ./...
	@$(TOOLS) staticcheck ./...
	@$(GO) test $(filter-out $(WHOLE),$(shell $(GO) list ./...))

.PHONY: prove
prove: deps ## run every test with its full counts (hours; PACKAGES='./session/... ./audit' runs those) and write docs/proof.md
	@RACE='$(RACE)' .ci/prove $(PACKAGES)

.PHONY: bench
bench: build ## measure beside the floor and other proxies (a quarter of an hour; BENCH='-n 3 -d 1s' is shorter) and write docs/performance.md
	@$(GO) run ./internal/bench -o docs/performance.md $(BENCH)

.PHONY: fuzz
fuzz: ## fuzz every fuzz target for FUZZTIME (default 30s) each
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),30s) $$package || exit 1; \
		done; \
	done

.PHONY: screenshots
screenshots: deps ## draw the pictures of every page anew, in Chromium, into docs/screenshots
	@mkdir -p docs/screenshots
	@GATEHOUSE_SCREENSHOTS=$(CURDIR)/docs/screenshots $(GO) test ./internal/pagestest -run TestScreenshots -count=1

.PHONY: generate
generate: ## write anew what is made from the source: sample configuration, its schema, docs/state.md
	@$(GO) test ./configs -run TestReference -update
	@$(GO) test ./store -run TestState -update
