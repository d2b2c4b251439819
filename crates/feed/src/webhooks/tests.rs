//! Deliveries on the real engine, in memory, to receivers that do as they are told.

mod couriers;
mod replays;
mod storing;
mod support;
