//! The rules of section "attempts": who is tried when, what it costs, when it ends.
