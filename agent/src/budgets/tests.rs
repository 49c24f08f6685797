//! Budgets of an agent with a ledger of its own.
