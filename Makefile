# One-liners. What they do is in cargo and in .ci/run.
.PHONY: up test lint fmt ci kills away fleet

up:
	cargo run --release -- up

test:
	cargo test --workspace

lint:
	cargo clippy --workspace --all-targets --all-features -- -D warnings

fmt:
	cargo fmt --all

ci:
	.ci/run

# A thousand kill -9 amid writes. About ten minutes.
kills:
	TRUNKLINE_TEST_KILLS=1000 cargo test -p trunkline-tests --test e2e acknowledged_writes_survive_kills

# Ten minutes without a control plane, with restarts of the agent.
away:
	TRUNKLINE_TEST_AWAY_SECONDS=600 cargo test -p trunkline-tests --test e2e an_agent_serves_for_as_long

# What 1,000 and 10,000 agents cost their control plane.
fleet:
	cargo bench -p trunkline-tests --bench fleet
