//! The report as GitHub markdown.

use super::tables::{self, Row, Section, Table, Value};
use super::words;
use crate::result::Results;

/// The whole report, each table with the command behind it.
pub fn markdown(results: &Results) -> String {
    let headline = words::headline(results);
    let mut out = format!("**{}**\n\n", escape(&headline.text()));
    for note in &results.run.scenarios {
        line(&mut out, format_args!("- {}: {}", code(&words::line(&note.name)), escape(&words::line(&note.title))));
    }
    out.push_str("\n| machine | |\n|---|---|\n");
    for (name, text) in tables::machine(results) {
        line(&mut out, format_args!("| {name} | {} |", escape(&text)));
    }
    for section in tables::sections(results) {
        write_section(&mut out, &section);
    }
    let commands = tables::commands(results);
    line(&mut out, format_args!("\n## The command behind each number\n\nThe run: {}", code(&words::command(results))));
    if !commands.rows.is_empty() {
        write_table(&mut out, &commands);
    }
    out
}

fn write_section(out: &mut String, section: &Section) {
    line(out, format_args!("\n## {}\n\n{}", section.title, section.intro));
    section.tables.iter().for_each(|table| write_table(out, table));
    if !section.points.is_empty() {
        out.push('\n');
    }
    for point in &section.points {
        line(out, format_args!("- {}", escape(point)));
    }
}

fn write_table(out: &mut String, table: &Table) {
    if !table.title.is_empty() {
        line(out, format_args!("\n### {}", escape(&table.title)));
    }
    let names: Vec<String> = table.columns.iter().map(|column| escape(&column.name)).collect();
    let rules: Vec<&str> = table.columns.iter().map(|column| if column.figures { "---:" } else { "---" }).collect();
    line(out, format_args!("\n| {} |\n|{}|", names.join(" | "), rules.join("|")));
    for row in &table.rows {
        line(out, format_args!("| {} |", cells(row).join(" | ")));
    }
    if !table.notes.is_empty() {
        let notes: Vec<String> = table.notes.iter().map(|note| escape(note)).collect();
        line(out, format_args!("\n{}", notes.join(" ")));
    }
    if let Some(all) = table.commands.first() {
        let part = table.commands.get(1).map(|one| format!("; its first cell alone: {}", code(one))).unwrap_or_default();
        line(out, format_args!("\nCommand: {}{part}", code(all)));
    }
}

fn cells(row: &Row) -> Vec<String> {
    let cell = |value: &Value| match value {
        Value::Code(text) => code(text),
        Value::Verdict(_) => value.words(),
        _ => escape(&value.words()),
    };
    row.values.iter().map(cell).collect()
}

/// Text that markdown takes for nothing but text, in a table or out of it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '~' | '#' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// A code span; the pipe is the one character that a table takes even from code.
fn code(text: &str) -> String {
    if text.is_empty() {
        return words::MISSING.to_owned();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 { " " } else { "" };
    format!("{fence}{pad}{}{pad}{fence}", text.replace('|', "\\|"))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.push_str(&text.to_string());
    out.push('\n');
}
