//! Where durable state lives: one small trait, several engines.
