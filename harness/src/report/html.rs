//! stub
use crate::result::Results;
/// stub
pub fn html(_: &Results) -> String { String::new() }
