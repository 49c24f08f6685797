# One-liners. What they do is in cargo and in .ci/run.
.PHONY: up test lint fmt ci

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
