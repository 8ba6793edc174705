//! Integration tests of the engine: one binary, one module per promise.

#![expect(clippy::disallowed_methods, reason = "tests start threads of their own")]

mod fs_conformance;
mod log;
mod shrink_crash;
mod support;
mod typed_format;
mod typed_model;
mod typed_store;
