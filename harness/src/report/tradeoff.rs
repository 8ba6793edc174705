//! The chart that a report opens with: what a write costs under each sync policy, and what a power loss takes.
//!
//! Cost is measured on the real disk and loss in simulated crashes; no figure of one stands in for the
//! other, so a policy without both is in the tables and not here.

use super::svg::{self, BAD, Canvas, Chart, GOOD_BACK, GRID, INK, LABEL, Looks, MUTED, OPEN_BACK, Paint, Scale};
use super::{crash, tables, words};
use crate::result::{Cell, CellKind, Loss, OpStats, Power, Results, Role, Verdict};
use plotters::style::text_anchor::HPos;
use std::collections::BTreeSet;

/// The first such chart as a picture of its own: white, with its fonts, its title and its sources; none without data.
pub fn chart(results: &Results) -> Option<String> {
    let picture = pictures(results).into_iter().next()?;
    let title = picture.title();
    let label = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let drawn = picture.draw(&Looks::of(results), Some(&picture.sources(results)));
    Some(svg::standalone(&drawn).replacen(LABEL, &label, 1))
}

/// One chart for each scenario and group that has both figures, the one with the most policies first.
pub(super) fn charts(results: &Results) -> Vec<Chart> {
    let looks = Looks::of(results);
    let drawn = pictures(results).into_iter().map(|picture| Chart {
        id: "chart-tradeoff".to_owned(),
        section: "promise",
        title: picture.title(),
        caption: format!("{READING} {}", picture.sources(results).join(" ")),
        commands: tables::commands_of(results, picture.points.first().map(|point| point.cell).into_iter()),
        wide: true,
        svg: picture.draw(&looks, None),
    });
    drawn.collect()
}

/// How to read it.
const READING: &str = "Left is fast, low is safe. Thin lines lead to the medians; a dash is what the policy promises at most.";

/// One subject under one policy.
struct Point<'a> {
    cell: &'a Cell,
    op: &'a OpStats,
    p99: f64,
    loss: &'a Loss,
    /// Loss at the median moment, under the model that takes the most.
    median: Option<f64>,
}

/// All points of one scenario and group.
struct Picture<'a> {
    scenario: &'a str,
    group: &'a str,
    /// The write that was measured.
    op: String,
    points: Vec<Point<'a>>,
    /// Policies whose loss is known and whose cost is not.
    without_cost: Vec<String>,
}

fn pictures(results: &Results) -> Vec<Picture<'_>> {
    let mut all: Vec<Picture<'_>> = Vec::new();
    let found = results.cells.iter().filter(|cell| cell.kind == CellKind::Power && cell.role == Role::Store);
    for (cell, power) in found.filter_map(|cell| Some((cell, cell.crash.as_ref()?.power.as_ref()?))) {
        let Some(loss) = power.loss.as_ref().filter(|_| cell.verdict != Verdict::NotMeasured) else { continue };
        let cost = tables::cost_beside(results, cell);
        let group = cost.map_or("", |(bench, ..)| bench.group.as_str());
        let at = all.iter().position(|picture| (picture.scenario, picture.group) == (&cell.scenario, group));
        let at = at.unwrap_or_else(|| {
            all.push(Picture {
                scenario: &cell.scenario,
                group,
                op: String::new(),
                points: Vec::new(),
                without_cost: Vec::new(),
            });
            all.len() - 1
        });
        let Some(picture) = all.get_mut(at) else { continue };
        let p99 = cost.and_then(|(_, _, op)| op.service.p99).filter(|p99| *p99 > 0);
        match cost.zip(p99) {
            Some(((_, name, op), p99)) => {
                picture.op = words::line(name);
                picture.points.push(Point { cell, op, p99: p99 as f64, loss, median: median(power) });
            }
            None => picture.without_cost.push(format!("{} under {}", words::line(&cell.subject), words::line(&cell.sync))),
        }
    }
    all.retain(|picture| !picture.points.is_empty());
    all.sort_by_key(|picture| std::cmp::Reverse(picture.points.len()));
    all
}

fn median(power: &Power) -> Option<f64> {
    Some(crash::worst_model(power)?.loss_window_ms?.p50).filter(|ms| ms.is_finite() && *ms >= 0.0)
}

/// Left and right edge of what is plotted, in pixels of a picture 800 wide.
const WIDTH: f64 = 800.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 784.0;

/// Upper and lower edges of the band of unbounded loss, of the scale and of the band where nothing was lost.
///
/// Heights within a band say nothing, so each of its points has a row of its own for its name.
struct Bands {
    unbounded: (f64, f64),
    scale: (f64, f64),
    nothing: (f64, f64),
    /// The lower edge of the axis and its title.
    end: f64,
}

const ROW: f64 = 34.0;

impl Bands {
    fn below(top: f64, points: &[Point<'_>]) -> Bands {
        let rows = |band: Band| points.iter().filter(|point| point.band() == band).count() as f64 * ROW;
        let unbounded = (top + 24.0, top + 50.0 + rows(Band::Unbounded));
        let scale = (unbounded.1 + 6.0, unbounded.1 + 246.0);
        let nothing = (scale.1 + 6.0, scale.1 + 32.0 + rows(Band::Nothing));
        Bands { unbounded, scale, nothing, end: nothing.1 + 42.0 }
    }

    fn of(&self, band: Band) -> (f64, f64) {
        match band {
            Band::Unbounded => self.unbounded,
            Band::Scale => self.scale,
            Band::Nothing => self.nothing,
        }
    }
}

/// The part of the picture that a point belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Band {
    Unbounded,
    Scale,
    Nothing,
}

impl Point<'_> {
    fn band(&self) -> Band {
        match self.loss {
            loss if loss.unbounded => Band::Unbounded,
            loss if crash::nothing_lost(loss) => Band::Nothing,
            _ => Band::Scale,
        }
    }
}

impl Picture<'_> {
    fn title(&self) -> String {
        format!("What each sync policy costs, and what a power loss takes: {}", tables::place(self.scenario, self.group))
    }

    /// Where the figures come from, a sentence each.
    fn sources(&self, results: &Results) -> Vec<String> {
        let sync = Some(results.storage.calibration.fdatasync_4k_p50_ns).filter(|ns| *ns > 0);
        let sync = sync.map_or(words::MISSING.to_owned(), |ns| words::ns(ns as f64));
        let mut out = vec![format!(
            "Cost: {} of {} on {}, where a sync of 4 KiB takes {sync} (median).",
            if self.op.is_empty() { "write" } else { &self.op },
            tables::place(self.scenario, self.group),
            if results.storage.filesystem.trim().is_empty() {
                "a real disk".to_owned()
            } else {
                words::line(&results.storage.filesystem)
            },
        )];
        for point in &self.points {
            let loss =
                format!("Loss, the worst of every fault model that the contract covers. {}", crash::simulation(point.loss));
            if !out.contains(&loss) {
                out.push(loss);
            }
        }
        if !self.without_cost.is_empty() {
            out.push(format!("Not drawn, for want of a p99: {}.", self.without_cost.join(", ")));
        }
        out
    }

    /// Bare for the page, which has title and sources around it; alone with both.
    fn draw(&self, looks: &Looks<'_>, sources: Option<&[String]>) -> String {
        let lines: Vec<String> = sources.iter().flat_map(|all| all.iter()).flat_map(|line| wrapped(line, 124)).collect();
        let head = if sources.is_some() { 62.0 } else { 0.0 };
        let foot = if sources.is_some() { 16.0 + lines.len() as f64 * 16.0 } else { 0.0 };
        let bands = Bands::below(head, &self.points);
        Canvas::draw(WIDTH, bands.end + foot, |c| {
            if sources.is_some() {
                c.bold(14.0, 22.0, &svg::short(&self.title(), 86), INK, 16.0);
                c.text(14.0, 45.0, READING, MUTED, 12.0, HPos::Left);
            }
            self.plot(c, looks, &bands);
            for (i, line) in lines.iter().enumerate() {
                c.text(14.0, bands.end + 14.0 + i as f64 * 16.0, line, MUTED, 11.5, HPos::Left);
            }
        })
    }

    fn plot(&self, c: &mut Canvas<'_>, looks: &Looks<'_>, bands: &Bands) {
        let x = Scale::decades(
            self.points.iter().flat_map(|point| [point.p99, point.op.service.p50 as f64]),
            LEFT + 16.0,
            RIGHT - 16.0,
        );
        let bounded = self.points.iter().filter(|point| !point.loss.unbounded);
        let losses = bounded.flat_map(|point| [Some(point.loss.worst_ms), point.median, point.loss.bound_ms]).flatten();
        let y = Scale::decades(losses.map(|ms| ms * 1e6), bands.scale.1 - 14.0, bands.scale.0 + 14.0);
        c.text(
            LEFT,
            bands.unbounded.0 - 16.0,
            "Loss window: age of the oldest acknowledged write that a power loss takes, at worst (logarithmic)",
            MUTED,
            12.0,
            HPos::Left,
        );
        c.bar(LEFT, bands.unbounded.0, RIGHT, bands.unbounded.1, OPEN_BACK);
        c.bar(LEFT, bands.nothing.0, RIGHT, bands.nothing.1, GOOD_BACK);
        for (value, label) in x.marks() {
            c.line(x.at(value), bands.unbounded.0, x.at(value), bands.nothing.1, GRID, 1.0);
            if label {
                c.text(x.at(value), bands.nothing.1 + 13.0, &svg::tick(value, words::ns), MUTED, 11.5, HPos::Center);
            }
        }
        for (value, label) in y.marks() {
            c.line(LEFT, y.at(value), RIGHT, y.at(value), GRID, 1.0);
            if label {
                c.text(LEFT - 8.0, y.at(value), &svg::tick(value, words::ns), MUTED, 11.5, HPos::Right);
            }
        }
        let below = "p99 of an acknowledged write on the real disk (logarithmic)";
        c.text((LEFT + RIGHT) / 2.0, bands.nothing.1 + 31.0, below, MUTED, 12.0, HPos::Center);
        let mut taken = Taken { boxes: Vec::new() };
        taken.write(c, LEFT + 8.0, bands.unbounded.0 + 11.0, &self.unbounded());
        taken.write(c, LEFT + 8.0, bands.nothing.0 + 11.0, "nothing lost");
        let mut placed: Vec<(f64, f64, &Point<'_>)> = Vec::new();
        for point in &self.points {
            let before = placed.iter().filter(|(.., other)| other.band() == point.band()).count() as f64;
            let at_y = match point.band() {
                Band::Scale => y.at(point.loss.worst_ms * 1e6),
                band => bands.of(band).0 + 22.0 + (before + 0.5) * ROW,
            };
            placed.push((x.at(point.p99), at_y, point));
        }
        for (at_x, at_y, point) in &placed {
            taken.boxes.push((at_x - 8.0, at_y - 8.0, at_x + 8.0, at_y + 8.0));
            let paint = Paint(looks.index(&point.cell.sync));
            let median = x.at(point.op.service.p50 as f64);
            c.line(median, *at_y, *at_x, *at_y, paint, 1.25);
            taken.boxes.push((median.min(*at_x), at_y - 3.0, median.max(*at_x), at_y + 3.0));
            if point.band() != Band::Scale {
                continue;
            }
            if let Some(median) = point.median {
                let end = if median > 0.0 { y.at(median * 1e6) } else { bands.nothing.0 };
                c.line(*at_x, end.max(*at_y), *at_x, *at_y, paint, 1.25);
                taken.boxes.push((at_x - 3.0, *at_y, at_x + 3.0, end.max(*at_y)));
            }
            if let Some(bound) = point.loss.bound_ms.filter(|bound| *bound > 0.0) {
                let bound = y.at(bound * 1e6);
                c.line(at_x - 11.0, bound, at_x + 11.0, bound, INK, 2.0);
                taken.boxes.push((at_x - 11.0, bound - 3.0, at_x + 11.0, bound + 3.0));
            }
        }
        let subjects: BTreeSet<&str> = self.points.iter().map(|point| point.cell.subject.as_str()).collect();
        for (at_x, at_y, point) in &placed {
            let look = looks.index(&point.cell.sync);
            let broken = point.cell.verdict > Verdict::NotMeasured;
            c.marker(*at_x, *at_y, look, if broken { BAD } else { Paint(look) });
            let twice = self
                .points
                .iter()
                .filter(|other| (&other.cell.subject, &other.cell.sync) == (&point.cell.subject, &point.cell.sync));
            let mut name = svg::short(&point.cell.sync, 24);
            if subjects.len() > 1 {
                name = format!("{name} · {}", svg::short(&point.cell.subject, 18));
            }
            if twice.count() > 1 {
                name = format!("{name} ({})", svg::short(&point.cell.level, 12));
            }
            if broken {
                name = format!("{name} · ✗ {}", words::verdict(point.cell.verdict));
            }
            let cost = format!("p99 {}", words::ns(point.p99));
            let figures = match point.loss {
                loss if !crash::nothing_lost(loss) => format!("{cost} · {} lost", words::ms(loss.worst_ms)),
                _ if broken => cost,
                _ => format!("{cost} · nothing lost"),
            };
            taken.label(c, (*at_x, *at_y), bands.of(point.band()), (&name, &figures), broken);
        }
    }

    /// What the upper band means, with the run that its losses grew with.
    fn unbounded(&self) -> String {
        let runs = self.points.iter().filter(|point| point.loss.unbounded).map(|point| point.loss.duration_ns);
        let runs: BTreeSet<String> = runs.map(|ns| svg::tick(ns as f64, words::ns)).collect();
        let runs: Vec<String> = runs.into_iter().collect();
        if runs.is_empty() { words::UNBOUNDED.to_owned() } else { format!("{} (run of {})", words::UNBOUNDED, runs.join(", ")) }
    }
}

/// Where something is written already: left, upper, right and lower edges.
struct Taken {
    boxes: Vec<(f64, f64, f64, f64)>,
}

impl Taken {
    fn write(&mut self, c: &mut Canvas<'_>, x: f64, y: f64, text: &str) {
        c.text(x, y, text, MUTED, 11.5, HPos::Left);
        self.boxes.push((x, y - 8.0, x + svg::width_of(text, 11.5), y + 8.0));
    }

    /// Writes two lines beside a point where they cover the least that is there already, in the point's own band:
    /// in another they would say something else.
    fn label(
        &mut self,
        c: &mut Canvas<'_>,
        (x, y): (f64, f64),
        (top, bottom): (f64, f64),
        (name, figures): (&str, &str),
        broken: bool,
    ) {
        let wide = svg::width_of(name, 13.0).max(svg::width_of(figures, 11.0)) + 6.0;
        let beside = [(x + 12.0, 0.0), (x - 12.0 - wide, 0.0), (x - wide / 2.0, 26.0), (x - wide / 2.0, -26.0)];
        let steps = [0.0, -18.0, 18.0, -32.0, 32.0, -48.0, 48.0, -64.0, 64.0];
        let spots = steps.iter().flat_map(|step| beside.iter().map(move |(left, down)| (*left, y + down + step)));
        let cost = |left: f64, middle: f64| {
            let (right, upper, lower) = (left + wide, middle - 15.0, middle + 15.0);
            let outside = (LEFT - left).max(0.0) + (right - RIGHT).max(0.0) + (top - upper).max(0.0) + (lower - bottom).max(0.0);
            let covered = self
                .boxes
                .iter()
                .map(|(l, t, r, b)| (right.min(*r) - left.max(*l)).max(0.0) * (lower.min(*b) - upper.max(*t)).max(0.0));
            covered.sum::<f64>() + outside * 100.0
        };
        let best = spots.map(|(left, middle)| (cost(left, middle), left, middle)).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, left, middle)) = best else { return };
        c.bold(left, middle - 7.0, name, if broken { BAD } else { INK }, 13.0);
        c.text(left, middle + 8.0, figures, MUTED, 11.0, HPos::Left);
        self.boxes.push((left, middle - 15.0, left + wide, middle + 15.0));
    }
}

/// Lines of at most so many characters, broken at spaces; a longer word is cut.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let word = svg::short(word, most);
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => *line += &format!(" {word}"),
            _ => lines.push(word),
        }
    }
    lines
}
