//! The report as one page: no network, no script to read it, light and dark, fit to print.

use super::svg::{self, Chart};
use super::tables::{self, Section, Table, Value};
use super::words::{self, Tone};
use crate::result::{Results, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The whole page, with the result itself embedded.
pub fn html(results: &Results) -> String {
    let headline = words::headline(results);
    let sections = tables::sections(results);
    let charts = svg::charts(results);
    let (tone, mark) = match headline.tone {
        Tone::Good => ("good", "✓"),
        Tone::Bad => ("bad", "✗"),
        Tone::Open => ("open", "?"),
        Tone::Broken => ("broken", "‼"),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                link rel="icon" href="data:,";
                title { (words::line(&results.run.id)) ": " (headline.text()) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                main {
                    h1 { "What a sync policy costs, and what a crash takes · run " (words::line(&results.run.id)) }
                    div class=(format!("verdict {tone}")) {
                        @if let Some(status) = &headline.status { p.status { (status) } }
                        p { span.mark aria-hidden="true" { (mark) } (headline.sentence) }
                    }
                    dl.facts {
                        @for (name, text) in tables::machine(results) { div { dt { (name) } dd { (text) } } }
                    }
                    @if !results.run.scenarios.is_empty() {
                        ul.note {
                            @for note in &results.run.scenarios { li { strong { (words::line(&note.name)) } ": " (words::line(&note.title)) } }
                        }
                    }
                    nav aria-label="Contents" {
                        @for section in &sections { a href={ "#" (section.id) } { (section.title) } }
                        a href="#commands" { "Commands" }
                    }
                    @for section in &sections { (shown(section, &charts)) }
                    (commands(results))
                    footer {
                        p {
                            "Rendered by harness " (words::line(&results.run.version)) " from "
                            a download href="result.json" { "result.json" }
                            " (beside this page; a copy is embedded in the page as " code { "#result" } ")."
                        }
                    }
                }
                script type="application/json" id="result" { (PreEscaped(inert(results))) }
            }
        }
    };
    page.into_string()
}

fn shown(section: &Section, charts: &[Chart]) -> Markup {
    let charts: Vec<&Chart> = charts.iter().filter(|chart| chart.section == section.id).collect();
    html! {
        section aria-labelledby=(section.id) {
            h2 id=(section.id) { (section.title) }
            p.intro { (section.intro) }
            @if !charts.is_empty() { div.charts { @for chart in charts { (figure(chart)) } } }
            @for table in &section.tables { (grid(table)) }
            @if !section.points.is_empty() { ul { @for point in &section.points { li { (point) } } } }
        }
    }
}

fn figure(chart: &Chart) -> Markup {
    let label = html! { (chart.title) }.into_string();
    html! {
        figure id=(chart.id) class=[chart.wide.then_some("wide")] {
            h3 { (chart.title) }
            div.plot { (PreEscaped(chart.svg.replacen(svg::LABEL, &label, 1))) }
            figcaption { (chart.caption) " " (behind(&chart.commands)) }
        }
    }
}

fn grid(table: &Table) -> Markup {
    html! {
        @if !table.title.is_empty() { h3 { (table.title) } }
        div.scroll tabindex="0" role="region" aria-label=(if table.title.is_empty() { "Table" } else { &table.title }) {
            table {
                thead { tr { @for column in &table.columns { th scope="col" class=[column.figures.then_some("num")] { (column.name) } } } }
                tbody {
                    @for row in &table.rows {
                        tr class=[row.aside.then_some("aside")] {
                            @for (i, value) in row.values.iter().enumerate() { (cell(value, table.columns.get(i).is_some_and(|column| column.figures))) }
                        }
                    }
                }
            }
        }
        @for note in &table.notes { p.note { (note) } }
        @if !table.commands.is_empty() { p.note { (behind(&table.commands)) } }
    }
}

/// The commands that made a table or a chart.
fn behind(commands: &[String]) -> Markup {
    html! {
        @for (i, command) in commands.iter().enumerate() {
            @if i == 0 { "Command: " } @else { "; its first cell alone: " }
            code { (command) }
        }
    }
}

fn cell(value: &Value, figures: bool) -> Markup {
    let num = figures.then_some("num");
    match value {
        Value::Missing => html! { td class={ "missing" @if figures { " num" } } { (words::MISSING) } },
        Value::Verdict(verdict) => html! { td { span class={ "tag " (judged(*verdict)) } { (value.words()) } } },
        Value::Judged(verdict, counts) => {
            html! { td { span class={ "tag " (judged(*verdict)) } { (Value::Verdict(*verdict).words()) } " (" (counts) ")" } }
        }
        Value::Code(code) => html! { td.long { code { (code) } } },
        Value::Heat(text, share, verdict) => {
            let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
            html! { td class={ "heat " (judged(*verdict)) } style={ "background:rgba(var(--heat)," (format!("{:.2}", 0.06 + share * 0.44)) ")" } { (text) } }
        }
        Value::Text(text) => html! { td class=[if text.chars().count() > 44 { Some("long") } else { num }] { (text) } },
        Value::Figure(text) => html! { td class=[num] { (text) } },
    }
}

fn judged(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Survived => "survived",
        Verdict::NotMeasured => "not-measured",
        _ => "fault",
    }
}

fn commands(results: &Results) -> Markup {
    let table = tables::commands(results);
    html! {
        section aria-labelledby="commands" {
            h2 id="commands" { "The command behind each number" }
            p { "The whole run: " code { (words::command(results)) } }
            @if !table.rows.is_empty() { (grid(&table)) }
        }
    }
}

/// JSON that no parser of the page can take for markup.
fn inert(results: &Results) -> String {
    let json = serde_json::to_string(results).unwrap_or_default();
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
