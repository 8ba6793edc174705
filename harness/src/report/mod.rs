//! Showing results: one format a file, `&Results` in, text out.
//!
//! **Invariant:** imports nothing of the harness but `result`.
