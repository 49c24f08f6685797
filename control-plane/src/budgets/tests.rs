//! Ledgers across restarts, periods, lost agents and a store that refuses.
