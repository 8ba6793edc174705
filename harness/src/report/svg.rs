//! Charts as SVG that takes its colours from the page, so that one drawing serves light, dark and print.
//!
//! A chart without data is not drawn. Scales are made here from whatever is finite and positive; nothing
//! that a result may hold reaches the drawing library unchecked.

use super::{tables, tradeoff, words};
use crate::result::{Cell, CellKind, Crash, Percentiles, Point, Projection, Results, Role, Ttfp, Verdict};
use plotters::prelude::{DrawingBackend, RGBColor, SVGBackend, ShapeStyle, TextStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont};
use std::collections::BTreeSet;

/// One drawing with what is said about it.
pub(super) struct Chart {
    /// `chart-…`, unique on the page.
    pub(super) id: String,
    /// The section it belongs to.
    pub(super) section: &'static str,
    pub(super) title: String,
    /// How to read it, in a sentence.
    pub(super) caption: String,
    /// For all of it, then for its first cell alone.
    pub(super) commands: Vec<String>,
    /// Wants the whole width of the page.
    pub(super) wide: bool,
    pub(super) svg: String,
}

/// Every chart that has data, in reading order.
pub(super) fn charts(results: &Results) -> Vec<Chart> {
    let mut all: Vec<Chart> = tradeoff::charts(results);
    let killed = results.cells.iter().any(|cell| cell.kind == CellKind::Kill);
    // Where power was cut and nothing was killed, one half of the next chart would be empty.
    all.extend(cost_and_loss(results).filter(|_| killed || all.is_empty()));
    all.extend(ttfp_bars(results));
    all.extend(ttfp_curves(results));
    all.extend(throughput(results));
    all.extend(latency(results));
    all.extend(sizes(results));
    all.extend(projections(results));
    let mut counts = std::collections::BTreeMap::new();
    for chart in &mut all {
        let n = counts.entry(chart.id.clone()).or_insert(0);
        *n += 1;
        if *n > 1 {
            chart.id = format!("{}-{n}", chart.id);
        }
    }
    all
}

/// What the page's style sheet has to define, besides `--s0` to `--s7`.
const NAMES: [&str; 8] = ["ink", "muted", "grid", "good", "bad", "paper", "good-bg", "open-bg"];
pub(super) const INK: Paint = Paint(8);
pub(super) const MUTED: Paint = Paint(9);
pub(super) const GRID: Paint = Paint(10);
const GOOD: Paint = Paint(11);
pub(super) const BAD: Paint = Paint(12);
const PAPER: Paint = Paint(13);
pub(super) const GOOD_BACK: Paint = Paint(14);
pub(super) const OPEN_BACK: Paint = Paint(15);

/// A colour by its role; the page decides what it looks like.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Paint(pub(super) u8);

impl Paint {
    fn rgb(self, dashed: bool) -> RGBColor {
        RGBColor(1, u8::from(dashed), self.0)
    }
}

/// What a policy looks like in every chart of the page: a colour and a shape.
pub(super) struct Looks<'a>(Vec<&'a str>);

impl<'a> Looks<'a> {
    pub(super) fn of(results: &'a Results) -> Looks<'a> {
        let mut syncs: Vec<&str> =
            results.cells.iter().map(|cell| cell.sync.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
        syncs.sort_by_key(|sync| words::policy_rank(sync));
        Looks(syncs)
    }

    pub(super) fn index(&self, sync: &str) -> u8 {
        (self.0.iter().position(|s| *s == sync).unwrap_or(0) % 8) as u8
    }

    fn paint(&self, cell: &Cell) -> Paint {
        if cell.role == Role::Store { Paint(self.index(&cell.sync)) } else { MUTED }
    }
}

fn cost_and_loss(results: &Results) -> Option<Chart> {
    struct Line<'a> {
        subject: &'a str,
        sync: &'a str,
        cost: Option<(f64, Option<f64>)>,
        loss: Option<(Verdict, Crash)>,
    }
    let looks = Looks::of(results);
    let mut lines = Vec::new();
    for (subject, sync, role) in tables::pairs(results) {
        let cost =
            tables::cost(results, subject, sync).map(|(_, _, op)| (op.service.p50 as f64, op.service.p99.map(|p| p as f64)));
        let loss = tables::kills(results, subject, sync).filter(|(_, crash)| crash.cases > 0);
        if role == Role::Store && (cost.is_some() || loss.is_some()) {
            lines.push(Line { subject, sync, cost, loss });
        }
    }
    let costs = lines.iter().filter_map(|line| line.cost).flat_map(|(p50, p99)| [p50, p99.unwrap_or(p50)]);
    let most_lost = lines.iter().filter_map(|line| line.loss.as_ref()).map(|(_, crash)| crash.lost_acked_max).max().unwrap_or(0);
    let (left, right) = (Scale::new(costs, 210.0, 470.0), Scale::with_zero(most_lost as f64, 660.0, 860.0));
    let heads = lines.iter().map(|line| line.subject).collect::<BTreeSet<_>>().len();
    if lines.is_empty() {
        return None;
    }
    let height = 74.0 + lines.len() as f64 * 26.0 + heads as f64 * 26.0;
    let svg = Canvas::draw(1040.0, height, |c| {
        c.text(210.0, 14.0, "what an acknowledged write costs: p50, whisker to p99", MUTED, 12.0, HPos::Left);
        c.text(660.0, 14.0, "acknowledged operations one kill took, at most", MUTED, 12.0, HPos::Left);
        let bottom = height - 30.0;
        if let Some(scale) = &left {
            c.x_axis(scale, 30.0, bottom, words::ns);
        }
        c.x_axis(&right, 30.0, bottom, words::figure);
        let mut y = 32.0;
        let mut before = None;
        for line in &lines {
            if before != Some(line.subject) {
                y += 26.0;
                c.bold(12.0, y - 10.0, &short(line.subject, 30), INK, 13.0);
                before = Some(line.subject);
            }
            let paint = Paint(looks.index(line.sync));
            let middle = y + 13.0;
            c.marker(18.0, middle, looks.index(line.sync), paint);
            c.text(32.0, middle, &short(line.sync, 24), INK, 12.5, HPos::Left);
            match (line.cost, &left) {
                (Some((p50, p99)), Some(scale)) => {
                    c.bar(scale.from, middle - 6.0, scale.at(p50), middle + 6.0, paint);
                    let end = p99.map_or(scale.at(p50), |p99| scale.at(p99));
                    c.whisker(scale.at(p50), end, middle);
                    let tail = p99.map_or(format!("p99 {}", words::MISSING), |p99| format!("p99 {}", words::ns(p99)));
                    c.text(end + 8.0, middle, &format!("{} · {tail}", words::ns(p50)), INK, 12.0, HPos::Left);
                }
                _ => c.text(210.0, middle, words::MISSING, MUTED, 12.0, HPos::Left),
            }
            let to_the_end = right.at(most_lost.max(10) as f64);
            match &line.loss {
                Some((verdict, crash)) if *verdict > Verdict::NotMeasured => {
                    c.bar(right.from, middle - 6.0, to_the_end, middle + 6.0, BAD);
                    let lost = if crash.lost_promised > 0 {
                        format!(", {} promised lost", words::count(crash.lost_promised))
                    } else {
                        String::new()
                    };
                    c.text(to_the_end + 8.0, middle, &format!("✗ {}{lost}", words::verdict(*verdict)), BAD, 12.0, HPos::Left);
                }
                Some((_, crash)) if crash.lost_acked_max == 0 => {
                    c.text(right.from + 6.0, middle, "✓ nothing acknowledged was lost", GOOD, 12.0, HPos::Left)
                }
                Some((_, crash)) => {
                    let end = right.at(crash.lost_acked_max as f64);
                    c.bar(right.from, middle - 6.0, end, middle + 6.0, paint);
                    let lost =
                        format!("{} · {}", words::counted(crash.lost_acked_max, "op"), tables::window(crash.loss_window_ms_max));
                    c.text(end + 8.0, middle, &lost, INK, 12.0, HPos::Left);
                }
                None => {
                    c.text(right.from + 6.0, middle, &format!("{}: no kill was tried", words::MISSING), MUTED, 12.0, HPos::Left)
                }
            }
            y += 26.0;
        }
    });
    Some(Chart {
        id: "chart-cost-and-loss".to_owned(),
        section: "promise",
        title: "Cost and loss of each sync policy".to_owned(),
        caption: "Short bars on the left are fast, short bars on the right are safe; ops and milliseconds on the right were acknowledged but not promised, unless a red ✗ says so.".to_owned(),
        commands: vec![words::command(results)],
        wide: true,
        svg,
    })
}

fn throughput(results: &Results) -> Vec<Chart> {
    let looks = Looks::of(results);
    let mut out = Vec::new();
    for (scenario, group) in tables::groups(results) {
        for name in tables::phases(tables::benches(results, scenario, group)) {
            let found = tables::benches(results, scenario, group)
                .filter_map(|(cell, bench)| Some((cell, tables::spread(tables::phase(bench, name)?)?)));
            let mut found: Vec<_> = found.collect();
            // A workload that waits for payments runs at its own pace.
            if tables::paced(results, scenario, group, name) {
                continue;
            }
            found.sort_by(|a, b| (a.0.role == Role::Null).cmp(&(b.0.role == Role::Null)).then(b.1.0.total_cmp(&a.1.0)));
            let rows = found.iter().map(|(cell, (median, least, most))| Bar {
                subject: cell.subject.clone(),
                sync: cell.sync.clone(),
                shape: looks.index(&cell.sync),
                paint: looks.paint(cell),
                value: *median,
                whisker: Some((*least, *most)),
                text: words::rate(*median),
                ..Bar::default()
            });
            let rows: Vec<Bar> = rows.collect();
            if rows.len() < 2 {
                continue;
            }
            let scale = Scale::new(
                rows.iter()
                    .flat_map(|bar| [bar.value, bar.whisker.map_or(bar.value, |w| w.0), bar.whisker.map_or(bar.value, |w| w.1)]),
                226.0,
                392.0,
            );
            let reading = if scale.as_ref().is_some_and(|scale| scale.log) {
                "further right is faster, and each gridline step is a multiple (logarithmic)"
            } else {
                "longer is faster"
            };
            out.extend(bars(&rows, words::rate).map(|svg| Chart {
                id: "chart-throughput".to_owned(),
                section: "speed",
                title: format!("Throughput: {}, {}", tables::place(scenario, group), words::line(name)),
                caption: format!("Median operations per second with whiskers from the slowest to the fastest repetition; {reading}; grey rows are baselines and the null subject, which promise nothing."),
                commands: tables::commands_of(results, found.first().map(|(cell, _)| *cell).into_iter()),
                wide: false,
                svg,
            }));
        }
    }
    out
}

fn latency(results: &Results) -> Vec<Chart> {
    let looks = Looks::of(results);
    let mut out = Vec::new();
    for (scenario, group) in tables::groups(results) {
        let here = || tables::benches(results, scenario, group).filter(|(cell, _)| cell.role == Role::Store);
        for name in tables::phases(here()) {
            let mut subjects: Vec<&str> = Vec::new();
            here().for_each(|(cell, _)| {
                if !subjects.contains(&cell.subject.as_str()) {
                    subjects.push(&cell.subject)
                }
            });
            for subject in subjects {
                let mut lines = Vec::new();
                let mut first = None;
                let mut op_name = String::new();
                for (cell, bench) in here().filter(|(cell, _)| cell.subject == subject) {
                    let Some((op, stats)) = tables::phase(bench, name).and_then(tables::main_op) else { continue };
                    let twice = here().filter(|(c, _)| c.subject == subject && c.sync == cell.sync).count() > 1;
                    let label = if twice { format!("{} ({})", cell.sync, cell.level) } else { cell.sync.clone() };
                    let look = looks.index(&cell.sync);
                    lines.push(Line { name: label.clone(), look, dashed: false, points: spectrum(&stats.service) });
                    lines.extend(stats.response.as_ref().map(|response| Line {
                        name: label,
                        look,
                        dashed: true,
                        points: spectrum(response),
                    }));
                    first = first.or(Some(cell));
                    op_name = words::line(op);
                }
                out.extend(curves(&lines, "service solid, response dashed", "share of the calls that are faster").map(|svg| Chart {
                    id: "chart-latency".to_owned(),
                    section: "speed",
                    title: format!("Latency of {op_name}: {subject}, {}, {}", tables::place(scenario, group), words::line(name)),
                    caption: format!("How long the slowest calls take: at 99 %, one call in a hundred takes at least this long (both axes logarithmic); solid from call to return, dashed from the moment the call was due.{}", if lines.iter().any(|line| line.dashed) { "" } else { " Nothing here was measured against a schedule." }),
                    commands: tables::commands_of(results, first.into_iter()),
                    wide: false,
                    svg,
                }));
            }
        }
    }
    out
}

fn sizes(results: &Results) -> Vec<Chart> {
    let looks = Looks::of(results);
    let mut out = Vec::new();
    for (scenario, group) in tables::groups(results) {
        let found = tables::benches(results, scenario, group).filter(|(cell, _)| cell.role == Role::Store);
        let mut found: Vec<_> =
            found.filter_map(|(cell, bench)| Some((cell, tables::space(bench, bench.phases.last()?)?))).collect();
        found.sort_by_key(|(cell, _)| first_of(results, &cell.subject));
        let rows: Vec<Bar> = found
            .iter()
            .map(|(cell, space)| {
                let after = space.apparent_after_shrink;
                Bar {
                    subject: cell.subject.clone(),
                    sync: cell.sync.clone(),
                    shape: looks.index(&cell.sync),
                    paint: looks.paint(cell),
                    value: space.apparent as f64,
                    second: after.map(|after| after as f64),
                    text: words::bytes(space.apparent as f64),
                    more: after.map_or(String::new(), |after| format!("→ {}", words::bytes(after as f64))),
                    base: Some(1024.0),
                    ..Bar::default()
                }
            })
            .collect();
        out.extend(bars(&rows, words::bytes).map(|svg| Chart {
            id: "chart-size".to_owned(),
            section: "speed",
            title: format!("Size of the files: {}", tables::place(scenario, group)),
            caption: "Sum of file lengths; where a thinner bar lies below, the store was then asked to shrink, and that is what was left.".to_owned(),
            commands: tables::commands_of(results, found.first().map(|(cell, _)| *cell).into_iter()),
            wide: false,
            svg,
        }));
    }
    out
}

/// What was measured as markers, and what is expected of larger stores as a dashed line.
fn projections(results: &Results) -> Vec<Chart> {
    let looks = Looks::of(results);
    let found = results.cells.iter().filter_map(|cell| Some((cell, cell.bench.as_ref()?)));
    let all = found.flat_map(|(cell, bench)| bench.projections.iter().map(move |projection| (cell, projection)));
    let drawn = all.filter_map(|(cell, projection)| {
        Some(Chart {
            id: format!("chart-{}", projection.name),
            section: "growth",
            title: format!("{}: {}, {}", words::line(&projection.title), words::line(&cell.subject), words::line(&cell.sync)),
            caption: format!("Measured as markers. {}", words::line(&projection.assumes)),
            commands: tables::commands_of(results, std::iter::once(cell)),
            wide: false,
            svg: projected(projection, looks.index(&cell.sync))?,
        })
    });
    drawn.collect()
}

fn projected(projection: &Projection, look: u8) -> Option<String> {
    let points = || projection.measured.iter().chain(&projection.predicted);
    let y_scale = Scale::linear(points().map(|p| p.value).fold(0.0, f64::max), 300.0, 30.0)?;
    let x_scale = Scale::decades(points().map(|p| p.bytes as f64), 66.0, 510.0);
    let label = |value: f64| tables::projected(projection.unit, value);
    Some(Canvas::draw(540.0, 346.0, |c| {
        for value in y_scale.ticks(5.0) {
            c.line(x_scale.from, y_scale.at(value), x_scale.to, y_scale.at(value), GRID, 1.0);
            let text = if value == 0.0 { "0".to_owned() } else { label(value) };
            c.text(x_scale.from - 8.0, y_scale.at(value), &text, MUTED, 11.5, HPos::Right);
        }
        for (bytes, is_labelled) in x_scale.marks() {
            c.line(x_scale.at(bytes), y_scale.to, x_scale.at(bytes), y_scale.from, GRID, 1.0);
            if is_labelled {
                c.text(x_scale.at(bytes), y_scale.from + 14.0, &words::decimal_bytes(bytes), MUTED, 11.5, HPos::Center);
            }
        }
        c.text(288.0, 336.0, "keys and values in the store", MUTED, 11.5, HPos::Center);
        let place = |p: &Point| (x_scale.at(p.bytes as f64), y_scale.at(p.value));
        c.path(projection.predicted.iter().map(place), Paint(look), true);
        for (x, y) in projection.measured.iter().map(place) {
            c.marker(x, y, look, Paint(look));
        }
    }))
}

fn ttfp_bars(results: &Results) -> Option<Chart> {
    let looks = Looks::of(results);
    let found = ttfps(results);
    let rows = found.iter().filter(|(_, ttfp)| ttfp.count > 0).map(|(cell, ttfp)| {
        let how = if ttfp.model.is_some() { " (simulated)" } else { "" };
        Bar {
            subject: format!("{}{how}", cell.subject),
            sync: cell.sync.clone(),
            shape: looks.index(&cell.sync),
            paint: looks.paint(cell),
            value: ttfp.mean,
            whisker: ttfp.p99.map(|p99| (ttfp.mean, p99 as f64)),
            text: words::ns(ttfp.mean),
            more: ttfp.published_ns.map_or(String::new(), |p| format!("◆ {}", words::ns(p as f64))),
            diamond: ttfp.published_ns.map(|p| p as f64),
            base: Some(1000.0),
            ..Bar::default()
        }
    });
    bars(&rows.collect::<Vec<_>>(), words::ns).map(|svg| Chart {
        id: "chart-ttfp".to_owned(),
        section: "ttfp",
        title: "Time to first payment by policy".to_owned(),
        caption: "Bars show the mean, whiskers reach the 99th percentile; a diamond is the figure that the source published for the policy; shorter is better.".to_owned(),
        commands: tables::commands_of(results, found.first().map(|(cell, _)| *cell).into_iter()),
        wide: false,
        svg,
    })
}

fn ttfp_curves(results: &Results) -> Vec<Chart> {
    let looks = Looks::of(results);
    let mut out = Vec::new();
    for (scenario, group) in tables::groups(results) {
        let found: Vec<_> =
            ttfps(results).into_iter().filter(|(cell, _)| cell.scenario == scenario && cell.group == group).collect();
        let mut subjects: Vec<&str> = Vec::new();
        found.iter().for_each(|(cell, _)| {
            if !subjects.contains(&cell.subject.as_str()) {
                subjects.push(&cell.subject)
            }
        });
        for subject in subjects {
            let mine = || found.iter().filter(|(cell, _)| cell.subject == subject);
            let lines: Vec<Line> = mine()
                .map(|(cell, ttfp)| Line {
                    name: cell.sync.clone(),
                    look: looks.index(&cell.sync),
                    dashed: ttfp.model.is_some(),
                    points: points(&ttfp.curve),
                })
                .collect();
            out.extend(curves(&lines, "measured solid, simulated dashed", "share of the channels that are faster").map(|svg| Chart {
                id: "chart-ttfp-curve".to_owned(),
                section: "ttfp",
                title: format!("Distribution of time to first payment: {}, {}", words::line(subject), tables::place(scenario, group)),
                caption: "How long the unluckiest payers wait: at 99 %, one channel in a hundred takes at least this long; measured solid, simulated dashed.".to_owned(),
                commands: tables::commands_of(results, mine().next().map(|(cell, _)| *cell).into_iter()),
                wide: false,
                svg,
            }));
        }
    }
    out
}

fn first_of(results: &Results, subject: &str) -> Option<usize> {
    results.cells.iter().position(|cell| cell.subject == subject)
}

fn ttfps(results: &Results) -> Vec<(&Cell, &Ttfp)> {
    let phases =
        results.cells.iter().flat_map(|cell| cell.bench.iter().flat_map(|bench| &bench.phases).map(move |phase| (cell, phase)));
    phases.filter_map(|(cell, phase)| phase.ttfp.as_ref().map(|ttfp| (cell, ttfp))).collect()
}

/// One row of a bar chart.
#[derive(Default)]
struct Bar {
    subject: String,
    sync: String,
    shape: u8,
    paint: Paint,
    value: f64,
    second: Option<f64>,
    whisker: Option<(f64, f64)>,
    diamond: Option<f64>,
    text: String,
    more: String,
    /// Lengths matter, so the axis begins at zero; its ticks are round in powers of this.
    base: Option<f64>,
}

impl Default for Paint {
    fn default() -> Paint {
        MUTED
    }
}

fn bars(rows: &[Bar], label: fn(f64) -> String) -> Option<String> {
    let rows: Vec<&Bar> = rows.iter().filter(|bar| bar.value.is_finite() && bar.value > 0.0).collect();
    let values = rows
        .iter()
        .flat_map(|bar| [Some(bar.value), bar.second, bar.diamond, bar.whisker.map(|w| w.0), bar.whisker.map(|w| w.1)])
        .flatten();
    let (from, to) = (226.0, 392.0);
    let scale = match rows.first()?.base {
        Some(base) => {
            let hi = values.fold(0.0, f64::max);
            Scale { unit: base.powf(hi.log(base).floor()), ..Scale::linear(hi, from, to)? }
        }
        None => Scale::new(values, from, to)?,
    };
    let height = 46.0 + rows.len() as f64 * 26.0;
    Some(Canvas::draw(540.0, height, |c| {
        c.x_axis(&scale, 6.0, height - 30.0, label);
        for (i, bar) in rows.iter().enumerate() {
            let y = 22.0 + i as f64 * 26.0;
            c.text(2.0, y, &short(&bar.subject, 17), INK, 12.0, HPos::Left);
            c.marker(121.0, y, bar.shape, bar.paint);
            c.text(131.0, y, &short(&bar.sync, 14), MUTED, 11.5, HPos::Left);
            let x = scale.at(bar.value);
            let whisker = bar.whisker.filter(|(least, most)| most > least);
            let mut end = whisker.map_or(x, |(_, most)| x.max(scale.at(most)));
            match bar.second {
                Some(second) => {
                    c.bar(from, y - 9.0, x, y + 1.0, bar.paint);
                    c.bar(from, y + 3.0, scale.at(second), y + 8.0, bar.paint);
                }
                None if scale.log => c.line(from, y, x, y, GRID, 3.0),
                None => c.bar(from, y - 7.0, x, y + 7.0, bar.paint),
            }
            if let Some((least, most)) = whisker {
                c.whisker(scale.at(least), scale.at(most), y);
            }
            if bar.second.is_none() && scale.log {
                // A length says nothing on a logarithmic axis: a point does.
                c.marker(x, y, bar.shape, bar.paint);
            }
            if let Some(value) = bar.diamond {
                c.diamond(scale.at(value), y);
                end = end.max(scale.at(value) + 6.0);
            }
            c.text(end + 9.0, y, &bar.text, INK, 12.0, HPos::Left);
            if !bar.more.is_empty() {
                c.text(end + 9.0 + width_of(&bar.text, 12.0) + 8.0, y, &bar.more, MUTED, 11.5, HPos::Left);
            }
        }
    }))
}

/// One line of a percentile chart: (fraction, nanoseconds), rising.
struct Line {
    name: String,
    look: u8,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

fn curves(lines: &[Line], key: &str, below: &str) -> Option<String> {
    let lines: Vec<&Line> = lines.iter().filter(|line| line.points.len() > 1).collect();
    let y_scale = Scale::new(lines.iter().flat_map(|line| &line.points).map(|(_, ns)| *ns), 300.0, 52.0)?;
    let deepest = lines.iter().flat_map(|line| &line.points).map(|(p, _)| 1.0 / (1.0 - p)).fold(10.0, f64::max);
    let x_scale = Scale { lo: 1.0, hi: deepest, log: true, unit: 1.0, from: 66.0, to: 510.0 };
    Some(Canvas::draw(540.0, 346.0, |c| {
        for ns in y_scale.ticks(5.0) {
            c.line(x_scale.from, y_scale.at(ns), x_scale.to, y_scale.at(ns), GRID, 1.0);
            c.text(x_scale.from - 8.0, y_scale.at(ns), &tick(ns, words::ns), MUTED, 11.5, HPos::Right);
        }
        for (inverse, label) in [
            (1.0, "0 %"),
            (2.0, "50 %"),
            (10.0, "90 %"),
            (100.0, "99 %"),
            (1e3, "99.9 %"),
            (1e4, "99.99 %"),
            (1e5, "99.999 %"),
            (1e6, "99.9999 %"),
        ] {
            if inverse <= deepest * 1.001 {
                let x = x_scale.at(inverse);
                c.line(x, y_scale.to, x, y_scale.from, GRID, 1.0);
                c.text(x, y_scale.from + 14.0, label, MUTED, 11.5, HPos::Center);
            }
        }
        c.text(288.0, 336.0, below, MUTED, 11.5, HPos::Center);
        let mut x = x_scale.from;
        let mut named = BTreeSet::new();
        for line in &lines {
            if named.insert(&line.name) && x < 470.0 {
                let name = short(&line.name, 22);
                c.marker(x + 5.0, 14.0, line.look, Paint(line.look));
                c.text(x + 15.0, 14.0, &name, INK, 12.0, HPos::Left);
                x += width_of(&name, 12.0) + 34.0;
            }
        }
        if lines.iter().any(|line| line.dashed) {
            c.text(x_scale.from, 34.0, key, MUTED, 11.5, HPos::Left);
        }
        for line in &lines {
            let place = |(p, ns): &(f64, f64)| (x_scale.at(1.0 / (1.0 - p)), y_scale.at(*ns));
            c.path(line.points.iter().map(place), Paint(line.look), line.dashed);
            for mark in [0.5, 0.9, 0.99, 0.999, 0.9999] {
                let near = line
                    .points
                    .iter()
                    .filter(|(p, _)| (p - mark).abs() < (1.0 - mark) * 0.05)
                    .min_by(|a, b| (a.0 - mark).abs().total_cmp(&(b.0 - mark).abs()));
                if let Some((x, y)) = near.map(place) {
                    c.marker(x, y, line.look, Paint(line.look));
                }
            }
        }
    }))
}

/// The curve, or the few percentiles there are.
fn spectrum(of: &Percentiles) -> Vec<(f64, f64)> {
    if of.curve.len() > 1 {
        return points(&of.curve);
    }
    let few = [(0.5, Some(of.p50)), (0.9, Some(of.p90)), (0.99, of.p99), (0.999, of.p99_9)];
    points(&few.into_iter().filter_map(|(p, ns)| Some((p, ns?))).collect::<Vec<_>>())
}

/// At most about a hundred points that can be drawn on two logarithmic axes.
fn points(curve: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let sane: Vec<(f64, f64)> =
        curve.iter().filter(|(p, ns)| (0.0..0.999_999_9).contains(p) && *ns > 0).map(|(p, ns)| (*p, *ns as f64)).collect();
    let step = sane.len() / 100 + 1;
    let last = sane.len().saturating_sub(1);
    sane.into_iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last).map(|(_, point)| point).collect()
}

/// From values to places on the canvas.
pub(super) struct Scale {
    lo: f64,
    hi: f64,
    log: bool,
    /// What ticks are round in: one, or the KiB and MiB of sizes.
    unit: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Logarithmic where the values span more than a factor of 30; none where there is nothing to show.
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Scale> {
        let sane = values.filter(|v| v.is_finite() && *v > 0.0);
        let (lo, hi) = sane.fold((f64::INFINITY, 0.0), |(lo, hi), v| (f64::min(lo, v), f64::max(hi, v)));
        match hi / lo {
            span if !span.is_finite() => None,
            span if span > 30.0 => {
                Some(Scale { lo: 10f64.powf(lo.log10().floor()), hi: nice_above(hi), log: true, unit: 1.0, from, to })
            }
            _ => Scale::linear(hi, from, to),
        }
    }

    fn linear(hi: f64, from: f64, to: f64) -> Option<Scale> {
        (hi.is_finite() && hi > 0.0).then_some(Scale { lo: 0.0, hi: hi * 1.02, log: false, unit: 1.0, from, to })
    }

    /// For counts that may be zero: the ends of a loss matter more than its exact size.
    fn with_zero(hi: f64, from: f64, to: f64) -> Scale {
        Scale { lo: 0.0, hi: hi.max(10.0), log: true, unit: 1.0, from, to }
    }

    /// Whole powers of ten, from below the least of the values to above the largest; milliseconds where there is none.
    pub(super) fn decades(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let sane = values.filter(|v| v.is_finite() && *v > 0.0).map(|v| v.clamp(1.0, 1e18));
        let (lo, hi) = sane.fold((f64::INFINITY, 0.0), |(lo, hi), v| (f64::min(lo, v), f64::max(hi, v)));
        let (lo, hi) = if hi > 0.0 { (lo, hi) } else { (1e6, 1e9) };
        let lo = 10f64.powf(lo.log10().floor());
        let hi = 10f64.powf(hi.log10().ceil()).max(lo * 10.0);
        Scale { lo, hi, log: true, unit: 1.0, from, to }
    }

    /// Powers of ten, and between few of them 2 and 5; with those to be labelled.
    pub(super) fn marks(&self) -> Vec<(f64, bool)> {
        let decades = (self.hi / self.lo).log10().round() as i32;
        let between: &[f64] = if decades > 5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = (0..=decades).flat_map(|n| between.iter().map(move |m| self.lo * 10f64.powi(n) * m));
        let step = if decades > 10 { 3 } else { 1 };
        let label = |value: f64| {
            let n = (value / self.lo).log10();
            decades <= 2 || ((n - n.round()).abs() < 1e-6 && n.round() as i32 % step == 0)
        };
        all.filter(|value| *value <= self.hi * 1.001).map(|value| (value, label(value))).collect()
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if value.is_finite() { value.clamp(self.lo, self.hi) } else { self.lo };
        let share = match (self.log, self.lo > 0.0) {
            (true, true) => (value / self.lo).ln() / (self.hi / self.lo).ln(),
            (true, false) => value.ln_1p() / self.hi.ln_1p(),
            (false, _) => (value - self.lo) / (self.hi - self.lo),
        };
        self.from + (self.to - self.from) * if share.is_finite() { share } else { 0.0 }
    }

    fn ticks(&self, about: f64) -> Vec<f64> {
        let mut out = Vec::new();
        if self.log {
            let lowest = if self.lo > 0.0 { self.lo } else { 1.0 };
            let decades = (self.hi / lowest).log10();
            let step = if decades > 6.0 { 2 } else { 1 };
            let first = lowest.log10().ceil() as i32;
            out.extend((0..40).step_by(step).map(|i| 10f64.powi(first + i)).take_while(|tick| *tick <= self.hi * 1.001));
            if self.lo == 0.0 {
                out.insert(0, 0.0);
            }
        } else {
            // Steps of 1, 2 or 5.
            let raw = self.hi / about;
            let power = self.unit * 10f64.powf((raw / self.unit).log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= raw).unwrap_or(raw);
            out.extend((0..12).map(|i| f64::from(i) * step).take_while(|tick| *tick <= self.hi));
        }
        out
    }
}

/// A round number needs no zeros behind its point, and zero no unit.
pub(super) fn tick(value: f64, label: fn(f64) -> String) -> String {
    if value == 0.0 { "0".to_owned() } else { label(value).replace(".00", "").replace(".0", "") }
}

fn nice_above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|nice| *nice >= value).unwrap_or(value)
}

pub(super) fn short(text: &str, most: usize) -> String {
    let text = words::line(text);
    if text.chars().count() <= most { text } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// About how wide a text will be.
pub(super) fn width_of(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

/// A drawing in the page's units; the library below counts in whole ones, so these are a quarter as large.
pub(super) struct Canvas<'a> {
    backend: SVGBackend<'a>,
}

const FINE: f64 = 4.0;

/// Stands in a drawing where the page puts the chart's title.
pub(super) const LABEL: &str = "{label}";

/// A drawing as a file of its own: in the page's light colours on white, with a size and fonts.
pub(super) fn standalone(drawing: &str) -> String {
    let light = include_str!("page.css").split_once('{').map_or("", |(_, rest)| rest).split('}').next().unwrap_or_default();
    let mut text = drawing.to_owned();
    for (name, value) in light.split(';').filter_map(|rule| rule.trim().strip_prefix("--")?.split_once(':')) {
        text = text.replace(&format!("\"var(--{name})\""), &format!("\"{value}\""));
    }
    let size = text.split_once("viewBox=\"0 0 ").and_then(|(_, rest)| rest.split_once('"')?.0.split_once(' '));
    let size = size.and_then(|(width, height)| Some((width.parse::<f64>().ok()?, height.parse::<f64>().ok()?)));
    let (width, height) = size.map_or((0.0, 0.0), |(width, height)| (width / FINE, height / FINE));
    let open = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif\" "
    );
    text = text.replacen("<svg ", &open, 1);
    if let Some(end) = text.find('>') {
        text.insert_str(end + 1, "\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>");
    }
    text
}

impl Canvas<'_> {
    /// An `<svg>` with [`LABEL`] for its label.
    pub(super) fn draw(width: f64, height: f64, paint: impl FnOnce(&mut Canvas<'_>)) -> String {
        let mut text = String::new();
        let mut canvas = Canvas { backend: SVGBackend::with_string(&mut text, ((width * FINE) as u32, (height * FINE) as u32)) };
        paint(&mut canvas);
        // Writing to a string cannot fail, here and below.
        canvas.backend.present().ok();
        drop(canvas);
        for code in 0..16u8 {
            let name = code
                .checked_sub(8)
                .and_then(|i| NAMES.get(usize::from(i)).map(|name| (*name).to_owned()))
                .unwrap_or(format!("s{code}"));
            text = text.replace(&format!("\"#0100{code:02X}\""), &format!("\"var(--{name})\""));
            text = text.replace(&format!("\"#0101{code:02X}\""), &format!("\"var(--{name})\" stroke-dasharray=\"22 18\""));
        }
        let body = text
            .split_once('>')
            .map_or("", |(_, body)| body)
            .replace(" opacity=\"1\"", "")
            .replace(" font-family=\"sans-serif\"", "");
        format!("<svg role=\"img\" aria-label=\"{LABEL}\" viewBox=\"0 0 {} {}\">{body}", width * FINE, height * FINE)
    }

    pub(super) fn bar(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, paint: Paint) {
        let x2 = x2.max(x1 + 1.5);
        self.backend.draw_rect(at(x1, y1), at(x2, y2), &ShapeStyle::from(&paint.rgb(false)).filled(), true).ok();
    }

    pub(super) fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, paint: Paint, width: f64) {
        self.backend.draw_line(at(x1, y1), at(x2, y2), &paint.rgb(false).stroke_width((width * FINE) as u32)).ok();
    }

    fn path(&mut self, points: impl Iterator<Item = (f64, f64)>, paint: Paint, dashed: bool) {
        self.backend.draw_path(points.map(|(x, y)| at(x, y)), &paint.rgb(dashed).stroke_width((2.0 * FINE) as u32)).ok();
    }

    fn whisker(&mut self, x1: f64, x2: f64, y: f64) {
        self.line(x1, y, x2, y, INK, 1.25);
        self.line(x1, y - 4.0, x1, y + 4.0, INK, 1.25);
        self.line(x2, y - 4.0, x2, y + 4.0, INK, 1.25);
    }

    fn diamond(&mut self, x: f64, y: f64) {
        self.polygon(&[(x - 7.0, y), (x, y - 7.0), (x + 7.0, y), (x, y + 7.0)], PAPER);
        self.polygon(&[(x - 5.0, y), (x, y - 5.0), (x + 5.0, y), (x, y + 5.0)], INK);
    }

    /// A shape for each policy, so that colour is never all there is.
    pub(super) fn marker(&mut self, x: f64, y: f64, look: u8, paint: Paint) {
        match look % 4 {
            0 => {
                drop(self.backend.draw_circle(at(x, y), (4.5 * FINE) as u32, &ShapeStyle::from(&paint.rgb(false)).filled(), true))
            }
            1 => self.polygon(&[(x - 5.0, y + 4.2), (x, y - 4.8), (x + 5.0, y + 4.2)], paint),
            2 => self.polygon(&[(x - 4.0, y - 4.0), (x + 4.0, y - 4.0), (x + 4.0, y + 4.0), (x - 4.0, y + 4.0)], paint),
            _ => self.polygon(&[(x - 5.4, y), (x, y - 5.4), (x + 5.4, y), (x, y + 5.4)], paint),
        }
    }

    fn polygon(&mut self, points: &[(f64, f64)], paint: Paint) {
        self.backend.fill_polygon(points.iter().map(|(x, y)| at(*x, *y)), &ShapeStyle::from(&paint.rgb(false)).filled()).ok();
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, paint: Paint, size: f64, anchor: HPos) {
        self.written(x, y, text, paint, size, (anchor, FontStyle::Normal));
    }

    pub(super) fn bold(&mut self, x: f64, y: f64, text: &str, paint: Paint, size: f64) {
        self.written(x, y, text, paint, size, (HPos::Left, FontStyle::Bold));
    }

    fn written(&mut self, x: f64, y: f64, text: &str, paint: Paint, size: f64, (anchor, weight): (HPos, FontStyle)) {
        // The library divides by 1.24 again.
        let font = ("sans-serif", size * FINE * 1.24).into_font().style(weight);
        let colour = paint.rgb(false);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(anchor, VPos::Center));
        self.backend.draw_text(text, &style, at(x, y)).ok();
    }

    fn x_axis(&mut self, scale: &Scale, top: f64, bottom: f64, label: fn(f64) -> String) {
        let mut taken = f64::NEG_INFINITY;
        for value in scale.ticks(3.0) {
            let x = scale.at(value);
            self.line(x, top, x, bottom, GRID, 1.0);
            let text = tick(value, label);
            let half = width_of(&text, 11.5) / 2.0;
            if x - half > taken {
                self.text(x, bottom + 13.0, &text, MUTED, 11.5, HPos::Center);
                taken = x + half + 8.0;
            }
        }
    }
}

fn at(x: f64, y: f64) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}
