//! One pool and many processes: real ones, which load it, are stopped, killed and cut off at any instant, and come back.
//!
//! A test is a script: it starts processes ([`process`]), which are this very binary, and tells each over a socket what to do, one order a
//! line ([`orders`]). It waits for what they say and for nothing else; the only sleeps are the random instants at which somebody is
//! killed. An object's bytes follow from its key and a number that they begin with ([`work`]), so whoever reads one knows whether they are
//! exactly what was put.
//!
//! `MMC_SHARE_SECONDS` is how long the pool is under load, 5 if it is not set; `MMC_SHARE_KILLS` the number of processes that are killed, 20 if
//! it is not set. A long run is `MMC_SHARE_SECONDS=60 MMC_SHARE_KILLS=200 cargo test --test sharing`.

#[path = "../support/mod.rs"]
mod support;

mod orders;
mod process;
mod work;

mod crowd;
mod ends;
mod kills;
mod load;
mod segments;
