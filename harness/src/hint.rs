//! What may have been meant by a name that nothing has.

/// `; did you mean "x"?` for the name that comes closest, or nothing.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|k| (strsim::damerau_levenshtein(name, k), k)).min();
    match best {
        Some((distance, known)) if distance <= 1 + known.len() / 3 => format!("; did you mean {known:?}?"),
        _ => String::new(),
    }
}
