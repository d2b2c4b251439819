//! Seeded simulation of the real engine.
