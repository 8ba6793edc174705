//! How figures and judgements are written: the one place, so that all formats say the same.

use crate::result::{Cell, CellKind, Metric, Results, Role, RunStatus, Verdict};
use std::collections::BTreeSet;

/// What stands where nothing was measured.
pub const MISSING: &str = "n/a";

/// A loss that only the end of the run ends.
pub const UNBOUNDED: &str = "unbounded";

/// A fault against which the contract of the policy promises nothing.
pub const NOT_PROMISED: &str = "not promised";

/// A time with three significant digits: `850 ns`, `1.20 µs`, `3.45 ms`, `12.0 s`.
pub fn ns(nanoseconds: f64) -> String {
    scaled(nanoseconds, &[(" ns", 1000.0), (" µs", 1000.0), (" ms", 1000.0), (" s", f64::INFINITY)])
}

/// A time given in milliseconds, as [`ns`] writes it.
pub fn ms(milliseconds: f64) -> String {
    ns(milliseconds * 1e6)
}

/// A size: `512 B`, `1.50 KiB`, `20.0 MiB`.
pub fn bytes(bytes: f64) -> String {
    if (0.0..1024.0).contains(&bytes) {
        return format!("{bytes:.0} B");
    }
    scaled(bytes, &[(" B", 1024.0), (" KiB", 1024.0), (" MiB", 1024.0), (" GiB", 1024.0), (" TiB", f64::INFINITY)])
}

/// A rate: `830/s`, `12.4k/s`, `1.20M/s`.
pub fn rate(per_second: f64) -> String {
    scaled(per_second, &[("/s", 1000.0), ("k/s", 1000.0), ("M/s", 1000.0), ("G/s", f64::INFINITY)])
}

/// Two rates, the unit said once where it is the same: `321..366k/s`.
pub fn rates(least: f64, most: f64) -> String {
    let (least, most) = (rate(least), rate(most));
    let unit = |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit() || ".,".contains(c)).to_owned();
    if unit(&least) == unit(&most) {
        format!("{}..{most}", least.trim_end_matches(&unit(&least)))
    } else {
        format!("{least}..{most}")
    }
}

/// A ratio: `1.25 ×`, `0.032 ×`, `1/2,900 ×`.
pub fn ratio(ratio: f64) -> String {
    match ratio {
        r if !r.is_finite() || r <= 0.0 => MISSING.to_owned(),
        r if r >= 0.0995 => format!("{} ×", figure(r)),
        r if r >= 0.00995 => format!("{r:.3} ×"),
        r => format!("1/{} ×", figure((1.0 / r).round())),
    }
}

/// A plain figure with three significant digits, such as syncs per write.
pub fn figure(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { scaled(value, &[("", f64::INFINITY)]) }
}

/// A whole number with thousands separated: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share as a percentage: `37.5 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{} %", figure(share * 100.0)) } else { MISSING.to_owned() }
}

/// `n` and its noun, with an `s` where there is not one: `1 kill`, `300 kills`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Text from outside on one line, without control characters.
pub fn line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The run's command as one would type it.
pub fn command(results: &Results) -> String {
    let mut words = vec!["harness".to_owned()];
    words.extend(results.run.argv.iter().map(|arg| quoted(arg)));
    words.join(" ")
}

/// A verdict's word.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Survived => "survived",
        Verdict::NotMeasured => "not-measured",
        Verdict::Lost => "lost",
        Verdict::Corrupt => "corrupt",
        Verdict::Unopenable => "unopenable",
        Verdict::Hung => "hung",
        Verdict::HarnessBroken => "harness-broken",
    }
}

/// A sign to tell verdicts apart without colour.
pub fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Survived => "✓",
        Verdict::NotMeasured => "?",
        Verdict::Lost | Verdict::Corrupt | Verdict::Unopenable | Verdict::Hung => "✗",
        Verdict::HarnessBroken => "‼",
    }
}

/// A kind's word.
pub fn kind(kind: CellKind) -> &'static str {
    match kind {
        CellKind::Bench => "bench",
        CellKind::Kill => "kill",
        CellKind::Power => "power",
        CellKind::Error => "error",
        CellKind::Rot => "rot",
    }
}

/// What one case of a kind is called.
pub fn case(kind: CellKind) -> &'static str {
    match kind {
        CellKind::Bench => "run",
        CellKind::Kill => "kill",
        CellKind::Power => "crash state",
        CellKind::Error | CellKind::Rot => "fault",
    }
}

/// Weak policies first: `never`, `manual`, `interval:…`, `always`, then anything else.
pub fn policy_rank(sync: &str) -> u8 {
    match sync {
        "never" => 0,
        "manual" => 1,
        "always" => 3,
        s if s.starts_with("interval") || s == "every-second" => 2,
        _ => 4,
    }
}

/// Fault models in rising order of what they let a crash take, then any other.
pub fn model_rank(model: &str) -> u8 {
    const RISING: [&str; 7] = ["process", "ext4-ordered", "xfs", "btrfs", "posix", "torn", "lying-disk"];
    RISING.iter().position(|name| *name == model).unwrap_or(RISING.len()) as u8
}

/// How the whole run is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// Crashes were tried and every promise held.
    Good,
    /// Nothing was judged, or not enough.
    Open,
    /// A promise was broken, or a criterion missed.
    Bad,
    /// The judge failed: no verdict counts.
    Broken,
}

/// The sentence on top of every report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// How to take it.
    pub tone: Tone,
    /// Said first when the run did not finish.
    pub status: Option<String>,
    /// The sentence.
    pub sentence: String,
    /// What each canary came to, a sentence each.
    pub canaries: Vec<String>,
}

impl Headline {
    /// Status and sentence in one.
    pub fn text(&self) -> String {
        self.status.iter().map(|s| format!("{s} ")).collect::<String>() + &self.sentence
    }
}

/// A round number of bytes in powers of ten: 100 MB, 1 TB.
pub fn decimal_bytes(bytes: f64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes >= *unit).unwrap_or((1.0, "B"));
    format!("{:.0} {name}", bytes / unit)
}

/// A figure of a criterion with its unit.
pub fn metric(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Rate => rate(value),
        Metric::ServiceP99Ms | Metric::ResponseP99Ms => ms(value),
        Metric::SpaceRatio => ratio(value),
        Metric::PeakMib => bytes(value * f64::from(1 << 20)),
        Metric::Seconds => ns(value * 1e9),
        Metric::Projected => figure(value),
        Metric::PredictionError => percent(value),
    }
}

/// How many of the scenarios' criteria hold, as a sentence.
fn criteria(results: &Results) -> Option<(bool, String)> {
    let all = || results.cells.iter().flat_map(|cell| &cell.criteria);
    let (held, of) = (all().filter(|c| c.holds).count(), all().count());
    let noun = if of == 1 { "criterion holds" } else { "criteria hold" };
    (of > 0).then(|| (held == of, format!("{held} of {of} {noun}.")))
}

/// Judges the run as a whole; the worst cell wins.
pub fn headline(results: &Results) -> Headline {
    let crashes = || results.cells.iter().filter(|c| c.kind != CellKind::Bench);
    let canaries: Vec<&Cell> = crashes().filter(|c| c.role == Role::Canary).collect();
    let broken = results.cells.iter().find(|c| c.verdict == Verdict::HarnessBroken);
    let acquitted = canaries.iter().find(|c| c.verdict == Verdict::Survived);
    let accused = |c: &&Cell| !matches!(c.role, Role::Canary | Role::Null);
    let mut convicted: Vec<&Cell> = results.cells.iter().filter(accused).filter(|c| c.verdict > Verdict::NotMeasured).collect();
    convicted.sort_by_key(|c| std::cmp::Reverse(c.verdict));
    let judged: Vec<&Cell> = crashes().filter(accused).filter(|c| c.verdict == Verdict::Survived).collect();
    let cases = cases_by_kind(&judged);
    let open = crashes().filter(accused).filter(|c| c.verdict == Verdict::NotMeasured).count() as u64;

    let (tone, sentence) = if let Some(cell) = acquitted {
        (
            Tone::Broken,
            format!(
                "HARNESS BROKEN: the canary {} under {} survived{}. It is broken on purpose and must be convicted, so no verdict of this run counts.",
                line(&cell.subject),
                line(&cell.sync),
                cases_of(cell)
            ),
        )
    } else if let Some(cell) = broken {
        let why = cell.reason.as_deref().map(|r| format!(": {}", line(r))).unwrap_or_default();
        (Tone::Broken, format!("HARNESS BROKEN in cell {}{why}. No verdict of this run counts.", line(&cell.id)))
    } else if let Some(worst) = convicted.first() {
        let others = convicted.len() as u64 - 1;
        let more = if others == 0 { String::new() } else { format!(" (and {})", counted(others, "more convicted cell")) };
        let score = score(results).map(|score| format!(" {score}")).unwrap_or_default();
        (Tone::Bad, format!("Durability violated: {}{more}.{score}", conviction(worst)))
    } else if !cases.is_empty() {
        let subjects: BTreeSet<&str> = judged.iter().map(|c| c.subject.as_str()).collect();
        let syncs: BTreeSet<&str> = judged.iter().map(|c| c.sync.as_str()).collect();
        let who = match subjects.len() {
            1 => judged.first().map(|c| line(&c.subject)).unwrap_or_default(),
            n => counted(n as u64, "store"),
        };
        let policies = if syncs.len() == 1 { "1 sync policy".to_owned() } else { format!("{} sync policies", syncs.len()) };
        let mut text = format!(
            "Every promise held: {who} under {policies}, {}, no promised operation lost.",
            cases.iter().map(|(case, n)| counted(*n, case)).collect::<Vec<_>>().join(", ")
        );
        if open > 0 {
            text += &format!(" {} could not be tried here.", counted(open, "cell"));
        }
        if canaries.iter().all(|c| c.verdict == Verdict::NotMeasured) {
            text += " No canary was tried, so nobody tested the judge.";
        }
        text += &score(results).map(|score| format!(" {score}")).unwrap_or_default();
        (Tone::Good, text)
    } else if results.cells.iter().any(|c| c.bench.is_some()) {
        (Tone::Open, "Speed only: no crash was judged, so this run says nothing about durability.".to_owned())
    } else {
        (Tone::Open, "Nothing was measured.".to_owned())
    };
    let (tone, sentence) = match criteria(results) {
        None => (tone, sentence),
        Some((true, held)) => (tone, format!("{held} {sentence}")),
        Some((false, held)) => (tone.max(Tone::Bad), format!("{held} {sentence}")),
    };
    let progress = format!("{} of {} planned cells.", count(results.cells.len() as u64), count(results.run.cells_planned));
    let status = match results.run.status {
        RunStatus::Complete => None,
        RunStatus::Partial => Some(format!("PARTIAL: {progress}")),
        RunStatus::Interrupted => Some(format!("INTERRUPTED: {progress}")),
    };
    Headline { tone, status, sentence, canaries: canaries.into_iter().map(canary).collect() }
}

/// How many of the canaries that were tried any of their cells convicted, as a sentence: the mutation score.
pub fn score(results: &Results) -> Option<String> {
    let tried = |cell: &&Cell| cell.role == Role::Canary && cell.kind != CellKind::Bench && cell.verdict != Verdict::NotMeasured;
    let named = |cells: &mut dyn Iterator<Item = &Cell>| cells.map(|cell| cell.subject.clone()).collect::<BTreeSet<_>>().len();
    let convicted = |cell: &&Cell| !matches!(cell.verdict, Verdict::Survived | Verdict::HarnessBroken);
    let cells = || results.cells.iter().filter(tried);
    let (n, m) = (named(&mut cells().filter(convicted)), named(&mut cells()));
    let noun = if m == 1 { "canary" } else { "canaries" };
    (m > 0).then(|| format!("{n} of {m} {noun} convicted."))
}

/// What was tried in these cells: kills, crash states and faults.
fn cases_by_kind(cells: &[&Cell]) -> Vec<(&'static str, u64)> {
    let mut out: Vec<(&'static str, u64)> = Vec::new();
    for (cell, crash) in cells.iter().filter_map(|cell| Some((cell, cell.crash.as_ref()?))).filter(|(_, crash)| crash.cases > 0) {
        match out.iter_mut().find(|(name, _)| *name == case(cell.kind)) {
            Some((_, n)) => *n = n.saturating_add(crash.cases),
            None => out.push((case(cell.kind), crash.cases)),
        }
    }
    out
}

/// One sentence on one canary's cell.
fn canary(cell: &Cell) -> String {
    let name = format!("Canary {} under {}", line(&cell.subject), line(&cell.sync));
    match (cell.verdict, &cell.crash) {
        (Verdict::Survived, _) => format!("{name} SURVIVED{}: the judge is blind, the harness is broken.", cases_of(cell)),
        (Verdict::HarnessBroken, _) => format!("{name}: harness-broken{}.", because(cell)),
        (Verdict::NotMeasured, _) => format!("{name} was not tried{}.", because(cell)),
        (found, Some(crash)) if crash.lost_promised > 0 => format!(
            "{name} convicted ({}){}: {} promised operations lost.",
            verdict(found),
            cases_of(cell),
            count(crash.lost_promised)
        ),
        (found, _) => format!("{name} convicted ({}){}.", verdict(found), cases_of(cell)),
    }
}

/// What a convicted cell did.
fn conviction(cell: &Cell) -> String {
    let who = format!("{} under {}", line(&cell.subject), line(&cell.sync));
    let what = match (cell.verdict, &cell.crash) {
        (Verdict::Lost, Some(crash)) => {
            format!("lost {} of {} promised operations", count(crash.lost_promised), count(crash.promised))
        }
        (Verdict::Lost, None) => "lost a promised operation".to_owned(),
        (Verdict::Corrupt, _) => "came back corrupt".to_owned(),
        (Verdict::Unopenable, _) => "did not open again".to_owned(),
        (Verdict::Hung, _) => "hung while reopening".to_owned(),
        (other, _) => verdict(other).to_owned(),
    };
    format!("{who} {what}{}", cases_of(cell))
}

fn cases_of(cell: &Cell) -> String {
    cell.crash.as_ref().map(|crash| format!(" in {}", counted(crash.cases, case(cell.kind)))).unwrap_or_default()
}

fn because(cell: &Cell) -> String {
    cell.reason.as_deref().map(|r| format!(": {}", line(r).trim_end_matches('.'))).unwrap_or_default()
}

fn scaled(value: f64, units: &[(&str, f64)]) -> String {
    if !value.is_finite() || value < 0.0 {
        return MISSING.to_owned();
    }
    let mut value = value;
    for (unit, limit) in units {
        // Rounded first, so that 999.6 ns is 1.00 µs and not 1000 ns.
        if value.round() < *limit {
            return format!("{}{unit}", three_digits(value, *unit == " ns"));
        }
        value /= limit;
    }
    MISSING.to_owned()
}

fn three_digits(value: f64, whole: bool) -> String {
    if value >= 1000.0 {
        return if value < 1e15 { count(value.round() as u64) } else { format!("{value:.2e}") };
    }
    let text = match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.0995 => format!("{v:.2}"),
        0.0 => "0".to_owned(),
        v if v < 0.0001 => format!("{v:.1e}"),
        v => format!("{v:.4}"),
    };
    if whole && text.ends_with(['0', '.']) && text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let arg = line(arg);
    if !arg.is_empty() && arg.chars().all(plain) { arg } else { format!("'{}'", arg.replace('\'', r"'\''")) }
}
