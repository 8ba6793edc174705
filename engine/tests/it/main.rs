//! Integration tests of the engine: one binary, one module per promise.

mod fifo_damage;
mod fifo_format;
mod fifo_model;
mod fifo_queue;
mod fifo_store;
mod fs_conformance;
mod log;
mod lsm_damage;
mod lsm_format;
mod lsm_model;
mod lsm_store;
mod lsm_threads;
mod lsm_tools;
mod lsm_values;
mod shrink_crash;
mod support;
mod typed_format;
mod typed_model;
mod typed_store;
