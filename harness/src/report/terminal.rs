//! The report for a terminal.

use super::tables::{self, Section, Table, Value};
use super::words::{self, Tone};
use crate::result::{Results, Verdict};
use comfy_table::{CellAlignment, ContentArrangement};

/// A rule under the header and nothing else.
const LINES: &str = "     ──            ";

/// The whole report; `width` is the terminal's, where there is one.
pub fn terminal(results: &Results, width: Option<usize>, colour: bool) -> String {
    let paint = Paint { colour };
    let headline = words::headline(results);
    let mut out = String::new();
    let mark = match headline.tone {
        Tone::Good => "✓ ",
        Tone::Bad => "✗ ",
        Tone::Broken => "‼ ",
        Tone::Open => "? ",
    };
    let first = wrap(&format!("{mark}{}", headline.text()), "", width);
    out += &match headline.tone {
        Tone::Good => paint.style("1;32", &first),
        Tone::Bad | Tone::Broken => paint.style("1;31", &first),
        Tone::Open => paint.style("1;33", &first),
    };
    out.push('\n');
    for (name, text) in tables::machine(results) {
        out += &wrap(&format!("  {name}: {text}"), "    ", width);
    }
    for section in tables::sections(results) {
        write_section(&mut out, &section, width, &paint);
    }
    out += &wrap(&format!("\nCommand: {}", words::command(results)), "    ", width);
    out
}

fn write_section(out: &mut String, section: &Section, width: Option<usize>, paint: &Paint) {
    out.push('\n');
    *out += &paint.style("1", section.title);
    out.push('\n');
    for table in &section.tables {
        if !table.title.is_empty() {
            *out += &format!("\n{}\n", paint.style("4", &table.title));
        }
        *out += &if section.id == "findings" { found(table, width, paint) } else { paint.verdicts(&laid_out(table, width)) };
        for note in &table.notes {
            *out += &paint.style("2", &wrap(&format!("  {note}"), "  ", width));
        }
    }
    for point in &section.points {
        let text = wrap(&format!("• {point}"), "  ", width);
        *out += &if point.contains("SURVIVED") { paint.style("1;31", &text) } else { text };
    }
}

/// Columns that a narrow terminal does without, first to go first; the page and the markdown have them all.
const EXPENDABLE: &[&str] = &[
    "reopen max",
    "service max",
    "response max",
    "hub queue p99",
    "scenario",
    "hub busy",
    "time/op",
    "reopen p50",
    "errors",
    "acked",
    "calls",
    "tried",
    "vs published",
    "corrupt / unopenable / hung",
    "count",
    "channels",
    "level",
    "peak RSS",
    "least..most",
    "p99.9",
    "syncs on path",
    "service p50",
    "response p50",
];

fn laid_out(table: &Table, width: Option<usize>) -> String {
    let mut columns: Vec<Laid> = (0..table.columns.len()).map(|i| Laid::of(table, i)).collect();
    let mut left_out = Vec::new();
    let total = |columns: &[Laid]| columns.iter().map(|column| column.width + 1).sum::<usize>();
    if let Some(width) = width {
        for name in EXPENDABLE {
            if total(&columns) <= width {
                break;
            }
            if let Some(i) = columns.iter().position(|column| column.name == *name) {
                columns.remove(i);
                left_out.push(*name);
            }
        }
    }
    let roomy = width.is_none_or(|width| total(&columns) + columns.len() <= width);
    let mut grid = comfy_table::Table::new();
    grid.load_preset(LINES);
    match width.and_then(|width| u16::try_from(width).ok()) {
        Some(width) => grid.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => grid.set_content_arrangement(ContentArrangement::Disabled),
    };
    grid.set_header(columns.iter().map(|column| column.head.as_str()));
    for i in 0..table.rows.len() {
        grid.add_row(columns.iter().map(|column| column.values.get(i).map_or("", String::as_str)));
    }
    for (i, column) in columns.iter().enumerate() {
        if let Some(laid) = grid.column_mut(i) {
            laid.set_padding((0, u16::from(roomy)));
            laid.set_cell_alignment(if column.figures { CellAlignment::Right } else { CellAlignment::Left });
        }
    }
    let mut lines: Vec<String> = grid.lines().map(|line| line.trim_end().to_owned()).collect();
    if !left_out.is_empty() {
        lines.push(format!("  (left out for width: {})", left_out.join(", ")));
    }
    lines.join("\n") + "\n"
}

/// One column in characters: broken at the spaces of its header, no space between a figure and its unit.
struct Laid {
    name: String,
    head: String,
    values: Vec<String>,
    figures: bool,
    width: usize,
}

impl Laid {
    fn of(table: &Table, i: usize) -> Laid {
        let (name, figures) = table.columns.get(i).map(|column| (column.name.clone(), column.figures)).unwrap_or_default();
        let broken = |name: &str| name.replace("throughput", "rate").replace(" / ", "/").replace('/', "/\n").replace(' ', "\n");
        let head = if figures { broken(&name) } else { name.clone() };
        let value = |value: &Value| match value {
            Value::Figure(text) => text.replace(' ', ""),
            Value::Text(_) | Value::Judged(..) => value.words().replace(" (", "\n("),
            _ => value.words(),
        };
        let values: Vec<String> = table.rows.iter().map(|row| row.values.get(i).map(value).unwrap_or_default()).collect();
        let width =
            values.iter().chain([&head]).flat_map(|text| text.lines()).map(|line| line.chars().count()).max().unwrap_or(0);
        Laid { name, head, values, figures, width }
    }
}

/// Findings are sentences and commands to copy: no table, and no line break within a command.
fn found(table: &Table, width: Option<usize>, paint: &Paint) -> String {
    let mut out = String::new();
    for row in &table.rows {
        let (code, words): (Vec<&Value>, Vec<&Value>) = row.values.iter().partition(|value| matches!(value, Value::Code(_)));
        let words: Vec<String> = words.into_iter().filter(|value| **value != Value::Missing).map(Value::words).collect();
        out += &paint.verdicts(&wrap(&format!("• {}", words.join(" · ")), "  ", width));
        for command in code {
            out += &format!("    {}\n", command.words());
        }
    }
    out
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn style(&self, code: &str, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let body = text.trim_end_matches('\n');
        format!("\u{1b}[{code}m{body}\u{1b}[0m{}", &text[body.len()..])
    }

    /// Colours each verdict with its sign; the width stays as laid out.
    fn verdicts(&self, text: &str) -> String {
        let all = [
            Verdict::Survived,
            Verdict::NotMeasured,
            Verdict::Lost,
            Verdict::Corrupt,
            Verdict::Unopenable,
            Verdict::Hung,
            Verdict::HarnessBroken,
        ];
        all.into_iter().fold(text.to_owned(), |text, verdict| {
            let plain = Value::Verdict(verdict).words();
            let code = match verdict {
                Verdict::Survived => "32",
                Verdict::NotMeasured => "33",
                _ => "31",
            };
            text.replace(&plain, &self.style(code, &plain))
        })
    }
}

/// Lines of at most `width` columns, broken at spaces; later lines begin with `indent`.
fn wrap(text: &str, indent: &str, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX).max(20);
    let mut out = String::new();
    let mut column = 0;
    for (i, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > width {
            out.push('\n');
            out += indent;
            column = indent.len();
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out.push('\n');
    out
}
