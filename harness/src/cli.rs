//! The command line: verbs, arguments, what is printed where, and how the program ends.
//!
//! Human text goes to stderr, data to stdout. Every refusal is one sentence with its remedy.

use crate::exit_code;
use crate::measure::host;
use crate::process::child;
use crate::report;
use crate::result::{self, Cell, CellKind, Results, RunStatus, Verdict};
use crate::runner::{self, Job, Progress, power, simulated};
use crate::scenario::{self, CellPlan, Filter, Profile};
use crate::subject::{Registry, Subject, SubjectError};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use engine::SyncPolicy;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Crash-tests and benchmarks embedded stores: what each sync policy costs and what a crash takes.
#[derive(Parser)]
#[command(name = "harness", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run scenarios and report what they show
    Run(RunArgs),
    /// Render the report of a run again
    Report(ReportArgs),
    /// Show a finding again: from its trace, or by running the kills that led to it
    Replay(ReplayArgs),
    /// Cut the run that led to a finding of a power cell down to the steps it takes, as a scenario
    Shrink(ShrinkArgs),
    /// List scenarios, subjects, policies, warnings or exit codes
    List {
        /// What to list
        what: Listing,
        /// How
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Explain a scenario, a subject, a warning code, the exit codes or the result's schema
    Show {
        /// Its name
        name: String,
    },
    /// Look at this machine: file system, sync latency, what is missing
    Doctor {
        /// The directory that stores would be in
        #[arg(long, default_value = ".")]
        dir: PathBuf,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// What the harness runs in its own child processes
    #[command(hide = true)]
    Child {
        /// The task file
        task: PathBuf,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// Scenarios by name, or paths of .toml files
    #[arg(default_value = "quick")]
    scenarios: Vec<String>,
    /// Folder of the run; by default a new one under reports/out
    #[arg(long)]
    out: Option<PathBuf>,
    /// Kinds of cells to run
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Kind>,
    /// Subjects to run; canaries always stay in
    #[arg(long, value_delimiter = ',')]
    subject: Vec<String>,
    /// Sync policies to run
    #[arg(long, value_delimiter = ',')]
    sync: Vec<SyncPolicy>,
    /// Seed of the run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much to run
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Where stores are created; by default in the folder of the run
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Show the cells and run nothing
    #[arg(long)]
    plan: bool,
    /// End with 5 if a cell could not be measured
    #[arg(long)]
    strict: bool,
}

#[derive(clap::Args)]
struct ReportArgs {
    /// Folder of a run, or its result.json
    run: PathBuf,
    /// Where to write report.html and report.md; by default beside the result
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also write the chart of what each policy costs and loses, as one SVG
    #[arg(long)]
    chart: Option<PathBuf>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(clap::Args)]
struct ReplayArgs {
    /// Folder of the run, or its result.json
    run: PathBuf,
    /// The finding's id
    id: String,
    /// How often to try; a kill's exact instant differs from time to time
    #[arg(long, default_value_t = 10)]
    tries: u64,
}

#[derive(clap::Args)]
struct ShrinkArgs {
    /// Folder of the run, or its result.json
    run: PathBuf,
    /// The finding's id
    id: String,
    /// Where to write the scenario; by default below scenarios/regression, named for the finding
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Listing {
    Scenarios,
    Subjects,
    Policies,
    Warnings,
    ExitCodes,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Bench,
    Kill,
    Power,
    Error,
    Rot,
}

impl From<Kind> for CellKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Bench => CellKind::Bench,
            Kind::Kill => CellKind::Kill,
            Kind::Power => CellKind::Power,
            Kind::Error => CellKind::Error,
            Kind::Rot => CellKind::Rot,
        }
    }
}

/// Why a verb ended without its result: a sentence and an exit code.
struct Refusal {
    code: u8,
    text: String,
}

impl Refusal {
    fn new(code: u8, text: impl ToString) -> Self {
        Self { code, text: text.to_string() }
    }

    fn usage(text: impl ToString) -> Self {
        Self::new(exit_code::USAGE, text)
    }

    /// A failed call on a path: a full disk is a budget, everything else is told as it is.
    fn io(what: &str, path: &Path, e: &io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                exit_code::BUDGET,
                format!("no space left {what} {}; free some, or choose another place with --out or --dir", path.display()),
            ),
            io::ErrorKind::AlreadyExists
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory => Self::usage(format!(
                "cannot work {what} {}: {e}; choose a directory that can be written with --out or --dir",
                path.display()
            )),
            _ => Self::new(exit_code::HARNESS, format!("failed {what} {}: {e}", path.display())),
        }
    }
}

pub(crate) fn main(registry: &Registry) -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.verb {
        Verb::Run(args) => run(registry, &args),
        Verb::Report(args) => render(&args),
        Verb::Replay(args) => replay(registry, &args),
        Verb::Shrink(args) => shrink(registry, &args),
        Verb::List { what, format } => list(registry, what, format),
        Verb::Show { name } => show(registry, &name),
        Verb::Doctor { dir } => doctor(&dir),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "harness", &mut io::stdout());
            Ok(exit_code::OK)
        }
        Verb::Child { task } => simulated::child(registry, &task)
            .unwrap_or_else(|| child::run(registry, &task))
            .map(|()| exit_code::OK)
            .map_err(|e| match e {
                SubjectError::Full(_) => Refusal::new(exit_code::BUDGET, e),
                e => Refusal::new(exit_code::HARNESS, e),
            }),
    };
    ExitCode::from(ended.unwrap_or_else(|refusal| {
        say(&format!("error: {}", refusal.text));
        refusal.code
    }))
}

/// For people.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// For programs, and for people who asked.
fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}

fn run(registry: &Registry, args: &RunArgs) -> Result<u8, Refusal> {
    let mut plans = Vec::new();
    for name in &args.scenarios {
        plans.extend(scenario::load(name, args.profile).map_err(Refusal::usage)?);
    }
    let filter =
        Filter { kinds: args.only.iter().map(|&k| k.into()).collect(), subjects: args.subject.clone(), sync: args.sync.clone() };
    let cells = scenario::cells(&plans, registry, &filter, args.seed).map_err(Refusal::usage)?;
    let mut ids: Vec<&str> = cells.iter().map(|c| c.id.as_str()).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Refusal::usage(format!(
            "two cells are called {}: give the scenarios or variants names of their own",
            twice[0]
        )));
    }
    if cells.iter().all(|c| c.role == result::Role::Canary) {
        let text = "nothing to run: no cell of these scenarios matches; `harness run SCENARIO --plan` shows what there is";
        return Err(Refusal::new(exit_code::NOTHING, text));
    }
    if args.plan {
        for cell in &cells {
            print(&cell.id);
        }
        return Ok(exit_code::OK);
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => fresh_folder(Path::new("reports/out"), &args.scenarios)?,
    };
    if out.join("result.json").exists() {
        return Err(Refusal::usage(format!("{} already holds a result; name another folder with --out", out.display())));
    }
    fs::create_dir_all(&out).map_err(|e| Refusal::io("in", &out, &e))?;
    let work = args.dir.clone().unwrap_or_else(|| out.clone());
    let stop = Arc::new(AtomicUsize::new(0));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(&stop), signal as usize)
            .map_err(|e| Refusal::new(exit_code::HARNESS, e))?;
    }
    let argv = std::env::args().skip(1).collect();
    let job = Job {
        cells,
        out: out.clone(),
        work: work.clone(),
        seed: args.seed,
        profile: args.profile,
        argv,
        stop: Arc::clone(&stop),
    };
    let progress = Bar::new(runner::steps(&job.cells), job.cells.len());
    let results = runner::run(&job, registry, &progress).map_err(|e| Refusal::io("in", &work, &e))?;
    progress.bar.finish_and_clear();
    let page = write_reports(&results, &out)?;
    match args.format {
        Format::Json => print(&report::json(&results)),
        Format::Text => print(&report::terminal(&results, None, colour())),
    }
    say(&format!("report: {}", page.display()));
    Ok(verdict_code(&results, args.strict, stop.load(Ordering::Relaxed)))
}

/// How a run ends: what it found, then how far it came.
fn verdict_code(results: &Results, strict: bool, signal: usize) -> u8 {
    let stores = || results.cells.iter().filter(|c| c.role == result::Role::Store);
    if results.cells.iter().any(|c| c.verdict == Verdict::HarnessBroken) {
        exit_code::HARNESS
    } else if stores().any(|c| c.verdict > Verdict::NotMeasured) {
        exit_code::DURABILITY
    } else if results.run.status == RunStatus::Interrupted {
        if signal == signal_hook::consts::SIGTERM as usize { exit_code::TERMINATED } else { exit_code::INTERRUPTED }
    } else if results.cells.iter().flat_map(|c| &c.criteria).any(|criterion| !criterion.holds) {
        exit_code::GATE
    } else if strict && stores().any(|c| c.verdict == Verdict::NotMeasured) {
        exit_code::INCONCLUSIVE
    } else {
        exit_code::OK
    }
}

/// A folder that does not exist yet, named for what runs and numbered.
fn fresh_folder(parent: &Path, scenarios: &[String]) -> Result<PathBuf, Refusal> {
    let stem = |name: &String| Path::new(name).file_stem().map_or(String::new(), |s| s.to_string_lossy().into_owned());
    let name = scenarios.iter().map(stem).collect::<Vec<_>>().join("+");
    fs::create_dir_all(parent).map_err(|e| Refusal::io("in", parent, &e))?;
    for number in 1.. {
        let folder = parent.join(format!("{name}-{number:03}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Refusal::io("in", parent, &e)),
        }
    }
    Err(Refusal::usage("no free folder"))
}

fn write_reports(results: &Results, out: &Path) -> Result<PathBuf, Refusal> {
    let page = out.join("report.html");
    for (path, text) in [(&page, report::html(results)), (&out.join("report.md"), report::markdown(results))] {
        fs::write(path, text).map_err(|e| Refusal::io("in", out, &e))?;
    }
    Ok(page)
}

fn render(args: &ReportArgs) -> Result<u8, Refusal> {
    let results = result::load(&args.run).map_err(Refusal::usage)?;
    let beside = if args.run.is_dir() { args.run.clone() } else { args.run.parent().unwrap_or(Path::new(".")).to_owned() };
    let out = args.out.clone().unwrap_or(beside);
    fs::create_dir_all(&out).map_err(|e| Refusal::io("in", &out, &e))?;
    let page = write_reports(&results, &out)?;
    if let Some(path) = &args.chart {
        let Some(chart) = report::chart(&results) else {
            let text = "there is nothing to draw: the chart takes bench and power cells of one scenario, subject and policy";
            return Err(Refusal::new(exit_code::NOTHING, text));
        };
        fs::write(path, chart).map_err(|e| Refusal::io("in", path, &e))?;
    }
    match args.format {
        Format::Json => print(&report::json(&results)),
        Format::Text => print(&report::terminal(&results, None, colour())),
    }
    say(&format!("report: {}", page.display()));
    Ok(exit_code::OK)
}

/// A finding of a run, with the cell that it belongs to.
struct Found {
    cell: CellPlan,
    subject: Arc<dyn Subject>,
    /// What stands behind the `#` of its id.
    number: String,
    /// What was kept of it, if it can be shown without running anything again.
    kept: Option<power::Kept>,
}

fn find(registry: &Registry, run: &Path, id: &str) -> Result<Found, Refusal> {
    let results = result::load(run).map_err(Refusal::usage)?;
    let unknown = || {
        let known = results.cells.iter().filter_map(|c| c.crash.as_ref()).flat_map(|c| &c.findings).map(|f| f.id.as_str());
        Refusal::usage(format!("the run has no finding {id:?}{}", crate::hint::did_you_mean(id, known)))
    };
    let (cell_id, number) = id.rsplit_once('#').ok_or_else(unknown)?;
    let cell = results.cells.iter().find(|c| c.id == cell_id).ok_or_else(unknown)?;
    if !cell.crash.iter().flat_map(|crash| &crash.findings).any(|f| f.id == id) {
        return Err(unknown());
    }
    let profile = Profile::from_str(&results.run.profile, true).map_err(Refusal::usage)?;
    let note = results.run.scenarios.iter().find(|s| s.name == cell.scenario);
    let source = note.map_or(&cell.scenario, |s| if s.source.is_empty() { &s.name } else { &s.source });
    let plans = scenario::load(source, profile).map_err(Refusal::usage)?;
    let cells = scenario::cells(&plans, registry, &Filter::default(), results.run.seed).map_err(Refusal::usage)?;
    let plan = cells.into_iter().find(|c| c.id == cell_id).ok_or_else(unknown)?;
    let subject = registry.get(&plan.subject).map_err(Refusal::usage)?;
    let folder = if run.is_dir() { run } else { run.parent().unwrap_or(Path::new(".")) };
    let file = power::evidence_file(&folder.join("traces"), id);
    let kept = match fs::read(&file) {
        Ok(json) => {
            let damaged = |e| Refusal::usage(format!("the trace {} is damaged: {e}; run the cell again", file.display()));
            Some(serde_json::from_slice(&json).map_err(damaged)?)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Refusal::io("in", &file, &e)),
    };
    Ok(Found { cell: plan, subject, number: number.to_owned(), kept })
}

fn replay(registry: &Registry, args: &ReplayArgs) -> Result<u8, Refusal> {
    let found = find(registry, &args.run, &args.id)?;
    let evidence = Path::new("reports/out/replay");
    if let Some(kept) = &found.kept {
        let to = power::evidence_file(evidence, &args.id).with_extension("");
        let again = power::replay(&found.cell, &*found.subject, kept, &to).map_err(|e| Refusal::io("in", &to, &e))?;
        say(&format!("the files that the crash leaves are below {}", to.display()));
        return Ok(match again {
            Some((verdict, words)) => {
                print(&format!("{}: {words}", report::words::verdict(verdict)));
                exit_code::DURABILITY
            }
            None => {
                print("survived: the store keeps its promises in this state now");
                exit_code::OK
            }
        });
    }
    let number = found.number.parse::<u64>().ok().filter(|_| found.cell.kind == CellKind::Kill).ok_or_else(|| {
        let text = "nothing was kept of this finding, because running the cell again shows it: take the command of the report";
        Refusal::usage(text)
    })?;
    let work = tempfile::tempdir_in(".").map_err(|e| Refusal::io("in", Path::new("."), &e))?;
    for attempt in 1..=args.tries {
        let (crash, verdict) = runner::kill::replay(&found.cell, &*found.subject, work.path(), evidence, number)
            .map_err(|e| Refusal::io("in", work.path(), &e))?;
        if verdict > Verdict::NotMeasured {
            for finding in &crash.findings {
                print(&format!("{}: {}", report::words::verdict(finding.verdict), finding.summary));
            }
            say(&format!("shown again in attempt {attempt}; the files are below {}", evidence.display()));
            return Ok(exit_code::DURABILITY);
        }
    }
    say(&format!(
        "did not show again in {} attempts; raise --tries, a kill's exact instant differs from time to time",
        args.tries
    ));
    Ok(exit_code::OK)
}

fn shrink(registry: &Registry, args: &ShrinkArgs) -> Result<u8, Refusal> {
    let found = find(registry, &args.run, &args.id)?;
    let name: String = args.id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let out = args.out.clone().unwrap_or_else(|| Path::new("scenarios/regression").join(format!("{name}.toml")));
    let name = out.file_stem().map_or(name, |stem| stem.to_string_lossy().into_owned());
    let shrunk = found.kept.as_ref().and_then(|kept| power::shrink(&found.cell, &*found.subject, kept, &name));
    let Some(text) = shrunk else {
        let text = "this finding cannot be shrunk: it takes a crash state of a power cell, and a run that shows it again";
        return Err(Refusal::new(exit_code::UNAVAILABLE, text));
    };
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).map_err(|e| Refusal::io("in", folder, &e))?;
    }
    fs::write(&out, &text).map_err(|e| Refusal::io("in", &out, &e))?;
    print(&text);
    say(&format!("written to {}; harness run {} shows it", out.display(), out.display()));
    Ok(exit_code::OK)
}

fn list(registry: &Registry, what: Listing, format: Format) -> Result<u8, Refusal> {
    let rows: Vec<(String, String)> = match what {
        Listing::Scenarios => {
            let title = |name: &str| {
                let text = scenario::builtin(name).unwrap_or_default();
                let titled = text.lines().find_map(|l| l.strip_prefix("title = ")).map(|t| t.trim_matches('"').to_owned());
                titled.or_else(|| text.lines().next().map(|l| l.trim_start_matches("# ").to_owned())).unwrap_or_default()
            };
            scenario::names().map(|name| (name.to_owned(), title(name))).collect()
        }
        Listing::Subjects => registry.iter().map(|s| (s.name().to_owned(), s.about())).collect(),
        Listing::Policies => [
            ("never", "synced only when a call asks for it"),
            ("interval:<d>", "synced at most d after a write, such as interval:10ms"),
            ("every-second", "interval:1s"),
            ("always", "synced before a write returns"),
            ("manual", "synced when the owner says so"),
        ]
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .to_vec(),
        Listing::Warnings => runner::WARNINGS.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec(),
        Listing::ExitCodes => exit_code::ALL.map(|(a, b)| (a.to_string(), b.to_owned())).to_vec(),
    };
    match format {
        Format::Json => {
            let objects: Vec<_> = rows.iter().map(|(name, about)| serde_json::json!({ "name": name, "about": about })).collect();
            print(&serde_json::Value::from(objects).to_string());
        }
        Format::Text => {
            let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            rows.iter().for_each(|(name, about)| print(&format!("{name:width$}  {about}")));
        }
    }
    Ok(exit_code::OK)
}

fn show(registry: &Registry, name: &str) -> Result<u8, Refusal> {
    if let Some(text) = scenario::builtin(name) {
        print(text);
    } else if let Ok(subject) = registry.get(name) {
        print(&format!("{} {}: {}", subject.name(), subject.version(), subject.about()));
    } else if let Some((code, text)) = runner::WARNINGS.iter().find(|(code, _)| *code == name) {
        print(&format!("{code}: {text}"));
    } else if name == "schema" {
        print(&report::schema());
    } else if name == "exit-codes" {
        return list(registry, Listing::ExitCodes, Format::Text);
    } else {
        let mut known: Vec<String> = registry.iter().map(|s| s.name().to_owned()).collect();
        known.extend(scenario::names().chain(["schema", "exit-codes"]).map(str::to_owned));
        known.extend(runner::WARNINGS.map(|(code, _)| code.to_owned()));
        return Err(Refusal::usage(format!(
            "there is nothing called {name:?} to show{}",
            crate::hint::did_you_mean(name, known.iter().map(String::as_str))
        )));
    }
    Ok(exit_code::OK)
}

fn doctor(dir: &Path) -> Result<u8, Refusal> {
    let machine = host::host();
    let storage = host::storage(dir, 500).map_err(|e| Refusal::io("in", dir, &e))?;
    let sync = &storage.calibration.fdatasync_4k;
    print(&format!("harness     {}, built with {}", host::version(), machine.rustc));
    print(&format!("system      {}, kernel {}", machine.os, machine.kernel));
    print(&format!(
        "processor   {}, {} available, {}",
        machine.cpu,
        machine.cores,
        report::words::bytes(machine.memory_bytes as f64)
    ));
    print(&format!("directory   {} on {} ({})", dir.display(), storage.filesystem, storage.mount));
    let ns = |n: u64| report::words::ns(n as f64);
    print(&format!("fdatasync   p50 {}, p90 {}, p99 {}", ns(sync.p50), ns(sync.p90), sync.p99.map_or("n/a".to_owned(), ns)));
    let fuse = if Path::new("/dev/fuse").exists() { "present" } else { "absent" };
    print(&format!("/dev/fuse   {fuse}"));
    Ok(exit_code::OK)
}

fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A bar with the time left on a terminal, a line a cell elsewhere.
struct Bar {
    bar: ProgressBar,
    lines: bool,
    cells: usize,
}

impl Bar {
    fn new(steps: u64, cells: usize) -> Self {
        let lines = !io::stderr().is_terminal();
        let bar = if lines { ProgressBar::hidden() } else { ProgressBar::new(steps) };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  left {eta}") {
            bar.set_style(style);
        }
        Self { bar, lines, cells }
    }
}

impl Progress for Bar {
    fn begin(&self, cell: &CellPlan, _: u64) {
        self.bar.set_message(cell.id.clone());
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn end(&self, cell: &Cell) {
        let line = format!("{:<14} {}", report::words::verdict(cell.verdict), cell.id);
        if self.lines {
            say(&line);
        } else if self.cells < 200 {
            self.bar.println(line);
        }
    }
}
