//! The admin port over the real store: opened through the C ABI, asked over real sockets, bytes compared with the contract.
//!
//! `contract` has a test for every documented path, `numbers` for what the counters mean, `pressure` for bad clients and a busy store,
//! `lifetime` for opening, configuring and closing. `store` is the C ABI with an owner, `client` a client that hides nothing, `alone` runs
//! a test in a process of its own where it counts what belongs to a whole process, or changes it.

mod alone;
mod client;
mod store;

mod contract;
mod lifetime;
mod numbers;
mod pressure;
