//! The result itself, and the schema that describes it.

use crate::result::Results;

/// `results` as `result.json` has it, with a newline at the end.
pub fn json(results: &Results) -> String {
    lines(serde_json::to_string_pretty(results))
}

/// The JSON schema of a result, with a newline at the end; `docs/result.schema.json` is this text.
pub fn schema() -> String {
    lines(serde_json::to_string_pretty(&schemars::schema_for!(Results)))
}

/// Plain types with string keys always serialise (NaN becomes null); should that ever change, the reader sees why.
fn lines(text: serde_json::Result<String>) -> String {
    let mut text = text.unwrap_or_else(|e| serde_json::json!({ "error": e.to_string() }).to_string());
    text.push('\n');
    text
}
