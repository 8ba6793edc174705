//! `kill` cells: a child writes, is killed, and another process judges what is left; then it all goes on
//! in the same store, because some bugs need a second crash.

use crate::exit_code;
use crate::history::{History, Moment, Note, Outcome, fingerprint};
use crate::measure::clock::{Clock, boot_ns};
use crate::measure::histogram::Latencies;
use crate::oracle::Judge;
use crate::oracle::contract::{Promises, promised_from};
use crate::oracle::kv::{Judgement, Written};
use crate::process::child::{Dump, DumpTask, StoreSpec, Task, WriteTask};
use crate::process::supervisor::{Ended, Running, start};
use crate::result::{Crash, Finding, Money, Role, Verdict};
use crate::scenario::CellPlan;
use crate::subject::{Contents, Half, Promise, Subject, entries_of};
use crate::workload::Workload;
use crate::workload::hub;
use crate::workload::random::{Rng, rng};
use crate::workload::stream::{Action, Answer, Call, Meaning};
use rand::RngExt;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

/// Slots for the calls of one client in one round.
const CAPACITY: u64 = 1 << 14;
/// How long to wait for a moment that a kill is aimed at.
const AIM_PATIENCE_NS: u64 = 3_000_000_000;
/// Kills within which a canary must be convicted.
const CANARY_SHOTS: usize = 60;
/// Findings kept in the result; the counts cover all.
const FINDINGS: usize = 20;

/// One planned kill.
#[derive(Clone, Copy, Debug)]
struct Shot {
    /// Number within the cell; with the cell's seed it determines everything but the timing.
    number: u64,
    aim: Option<Moment>,
    /// Starts with an empty directory.
    fresh: bool,
}

/// Kills the cell's store as often as planned. `step` is told after each kill how many are done and may
/// end the cell early by answering `false`.
pub fn run(
    cell: &CellPlan,
    subject: &dyn Subject,
    work: &Path,
    evidence: &Path,
    step: &mut dyn FnMut(u64) -> bool,
) -> io::Result<(Crash, Verdict)> {
    let mut gallery = Gallery::default();
    let shots = shots(cell);
    // What canaries leave behind is only of interest to whoever replays them.
    let evidence = (cell.role == Role::Store).then_some(evidence);
    volley(cell, subject, work, evidence, &shots, &mut gallery, step)?;
    let (crash, verdict) = gallery.close(cell);
    // Of a cell that was interrupted only what it found counts, not what it did not find.
    let whole = crash.cases == shots.len() as u64;
    Ok((crash, if whole || verdict != Verdict::Survived { verdict } else { Verdict::NotMeasured }))
}

/// Repeats the kills of one store up to and with number `last`, as a replay of a finding. A kill's exact
/// instant is the machine's, so the finding need not show every time.
pub fn replay(cell: &CellPlan, subject: &dyn Subject, work: &Path, evidence: &Path, last: u64) -> io::Result<(Crash, Verdict)> {
    let shots = shots(cell);
    let until = &shots[..shots.len().min(last as usize + 1)];
    let from = until.iter().rposition(|s| s.fresh).unwrap_or(0);
    let mut gallery = Gallery::default();
    volley(cell, subject, work, Some(evidence), &until[from..], &mut gallery, &mut |_| true)?;
    Ok(gallery.close(cell))
}

fn volley(
    cell: &CellPlan,
    subject: &dyn Subject,
    work: &Path,
    evidence: Option<&Path>,
    shots: &[Shot],
    gallery: &mut Gallery,
    step: &mut dyn FnMut(u64) -> bool,
) -> io::Result<()> {
    let mut base: Contents = Vec::new();
    gallery.spoilt = true;
    for (done, shot) in shots.iter().enumerate() {
        let dir = work.join("store");
        if shot.fresh || gallery.spoilt {
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir)?;
            base = vec![Default::default(); cell.plan.workload.tables().len()];
            gallery.spoilt = false;
        }
        let round = fire(cell, subject, shot, &base, work)?;
        base = gallery.hang(cell, shot, round);
        if let Some(evidence) = evidence.filter(|_| gallery.spoilt) {
            keep(&dir, &evidence.join(format!("{}-{}", cell.id.replace('/', "-"), shot.number)))?;
        }
        let convicted = cell.role == Role::Canary && gallery.spoilt;
        if !step(done as u64 + 1) || convicted {
            break;
        }
    }
    Ok(())
}

/// Keeps the files of a store that failed, for whoever looks into it.
fn keep(store: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// How many kills the cell plans.
pub fn planned(cell: &CellPlan) -> u64 {
    shots(cell).len() as u64
}

/// Random and aimed kills in turn; a store is started anew every few kills, and whenever its creation is
/// aimed at. A canary is shot at until it is convicted, so many times at most.
fn shots(cell: &CellPlan) -> Vec<Shot> {
    let plan = &cell.plan.kill;
    let mut aims: Vec<Option<Moment>> = Vec::new();
    if cell.role == Role::Canary {
        let cycle = [Some(Moment::BeforeWrite), None, Some(Moment::InsideWrite)];
        aims.extend(cycle.into_iter().cycle().take(CANARY_SHOTS));
    } else {
        let most = plan.aimed.max(plan.random.div_ceil(5));
        // No entry of a queue is as long as a mebibyte.
        let none_long = matches!(cell.plan.workload, Workload::Queue(_));
        let moments = Moment::AIMED.into_iter().filter(|m| cell.shrinks || !m.needs_shrink());
        let moments = moments.filter(|m| !none_long || *m != Moment::InsideWrite);
        for turn in 0..most {
            aims.extend(moments.clone().filter(|_| turn < plan.aimed).map(Some));
            let due = |turns: u64| plan.random * turns / most;
            aims.extend((due(turn)..due(turn + 1)).map(|_| None));
        }
    }
    // Recovery needs a store to recover.
    let fresh = |i: usize, aim| {
        aim == Some(Moment::Creation) || ((i as u64).is_multiple_of(plan.rounds) && aim != Some(Moment::Recovery))
    };
    let shot = |(i, aim)| Shot { number: i as u64, aim, fresh: fresh(i, aim) };
    aims.into_iter().enumerate().map(shot).collect()
}

/// What one kill showed.
struct Round {
    moment: Moment,
    dump: Result<Dump, Verdict>,
    judgement: Judgement,
    /// Age of the oldest lost acknowledgement at the kill.
    window_ns: u64,
    money: Option<Money>,
    /// The child ended by itself before it was killed.
    early: Option<String>,
}

fn fire(cell: &CellPlan, subject: &dyn Subject, shot: &Shot, base: &Contents, work: &Path) -> io::Result<Round> {
    let store = StoreSpec {
        subject: cell.subject.clone(),
        sync: cell.sync,
        level: cell.level.clone(),
        workload: cell.plan.workload.clone(),
        tables: cell.plan.tables(),
        dir: work.join("store"),
    };
    let mut rng = rng(cell.seed, &[shot.number]);
    let skip = match shot.aim {
        // Opening takes some ten calls; shrinks and renames come again and again.
        Some(Moment::Recovery) => rng.random_range(0..10),
        Some(Moment::ShrinkCopy | Moment::AfterRename) => rng.random_range(0..4),
        Some(Moment::BeforeWrite) => rng.random_range(0..200),
        _ => 0,
    };
    let aim = shot.aim.and_then(|m| Moment::AIMED.iter().position(|a| *a == m)).map(|index| (index, skip));
    let shrink = shot.aim.is_some_and(Moment::needs_shrink) || (shot.aim.is_none() && rng.random_bool(0.3));
    let halves: &[Option<Half>] = match &cell.plan.workload {
        Workload::Queue(spec) if spec.two_processes => &[Some(Half::Producer), Some(Half::Consumer)],
        _ => &[None],
    };
    // Only one process is aimed at, and only one removes files.
    let aimed = (shot.number % halves.len() as u64) as usize;
    let mut victims = Vec::new();
    for (n, &half) in halves.iter().enumerate() {
        let work = half.map_or(work.to_owned(), |half| work.join(format!("{half:?}").to_lowercase()));
        fs::create_dir_all(&work)?;
        let path = work.join("history");
        let history = History::create(&path, cell.plan.workload.clients(), CAPACITY)?;
        let task = WriteTask {
            store: store.clone(),
            seed: cell.seed,
            round: shot.number,
            history: path,
            capacity: CAPACITY,
            aim: aim.filter(|_| n == aimed),
            shrink: shrink && half != Some(Half::Producer),
            half,
        };
        victims.push(Victim { child: start(&Task::Write(task), &work)?, history, half });
    }
    let window = Duration::from_micros(rng.random_range(0..=cell.plan.kill.window_ms.max(1) * 1000));
    let mut early = None;
    let clock = Clock::start();
    'waiting: loop {
        let history = &victims[aimed].history;
        let there = match shot.aim {
            Some(Moment::InsideWrite) => history.moment() == Moment::InsideWrite,
            Some(_) => history.is_lingering(),
            None => victims.iter().all(|victim| victim.history.is_ready()),
        };
        if there || clock.now() > AIM_PATIENCE_NS {
            break;
        }
        for victim in &mut victims {
            if let Some(Ended::Exited(status, words)) = victim.child.try_ended()? {
                full(status, &words)?;
                early = Some(format!("the writer ended by itself ({status}): {words}"));
                break 'waiting;
            }
        }
        if shot.aim == Some(Moment::InsideWrite) { thread::yield_now() } else { thread::sleep(Duration::from_micros(50)) }
    }
    match shot.aim {
        None => thread::sleep(window),
        // Somewhere in the few hundred microseconds that the write takes.
        Some(Moment::InsideWrite) => busy_wait(rng.random_range(0..100_000)),
        Some(_) => {}
    }
    let crashed_at = boot_ns();
    let moment = victims[aimed].history.moment();
    let histories = kill_all(victims, aimed, &mut rng)?;
    let dump = dump(&store, work, Duration::from_millis(cell.plan.kill.timeout_ms))?;
    let (mut writes, notes) = asked(cell, shot.number, &histories);
    answer(&mut writes, &notes, base);
    let mut judgement = Judgement::default();
    let mut money = None;
    if let Ok(Dump { contents: Ok(contents), .. }) = &dump {
        let keeps_prefix = subject.keeps_prefix();
        let of = |write: &Written| subject.promise(cell.sync.0, write.level);
        let from = promised_from(&writes, &Promises { crash: Promise::Process, of: &of, keeps_prefix, syncs: &[] });
        // The history ends with the process: whatever stands in it happened before the crash.
        judgement = Judge::new(base, &writes, &from, keeps_prefix).judge(contents, u64::MAX);
        if let Workload::Hub(_) = cell.plan.workload {
            money = Some(count_money(&writes, &notes, &judgement, contents));
        }
    }
    let window_ns = judgement.oldest_lost.map_or(0, |at| crashed_at.saturating_sub(at));
    Ok(Round { moment, dump, judgement, window_ns, money, early })
}

/// A process that is to be killed, and what it tells.
struct Victim {
    child: Running,
    history: History,
    half: Option<Half>,
}

/// Kills the one that was aimed at. Another goes on for a while without it, or for no time at all; then it is killed
/// too.
fn kill_all(mut victims: Vec<Victim>, aimed: usize, rng: &mut Rng) -> io::Result<Vec<(History, Option<Half>)>> {
    victims.swap(0, aimed);
    let mut histories = Vec::new();
    for (n, Victim { child, history, half }) in victims.into_iter().enumerate() {
        if n > 0 && rng.random_bool(0.7) {
            thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        }
        child.kill()?;
        histories.push((history, half));
    }
    Ok(histories)
}

/// Sleeping is too coarse inside a system call of another process.
fn busy_wait(ns: u64) {
    let clock = Clock::start();
    while clock.now() < ns {
        std::hint::spin_loop();
    }
}

/// Opens the store in a process of its own and reads it. `Err` is the verdict on a store that cannot be
/// opened or read.
fn dump(store: &StoreSpec, work: &Path, limit: Duration) -> io::Result<Result<Dump, Verdict>> {
    let out = work.join("dump.json");
    let _ = fs::remove_file(&out);
    let task = Task::Dump(DumpTask { store: store.clone(), out: out.clone() });
    Ok(match start(&task, work)?.wait(limit)? {
        Ended::TimedOut => Err(Verdict::Hung),
        Ended::Exited(status, words) => {
            full(status, &words)?;
            match fs::read(&out).map(|json| serde_json::from_slice::<Dump>(&json)) {
                Ok(Ok(dump)) => Ok(dump),
                // It died while opening: a panic, or worse.
                _ => Err(Verdict::Unopenable),
            }
        }
    })
}

/// A child that met a full disk says nothing about its store: the run ends there.
fn full(status: ExitStatus, words: &str) -> io::Result<()> {
    if status.code() == Some(i32::from(exit_code::BUDGET)) {
        return Err(io::Error::new(io::ErrorKind::StorageFull, words.to_owned()));
    }
    Ok(())
}

/// What the clients had asked for when they were killed: their streams again, as far as they came.
fn asked(cell: &CellPlan, round: u64, histories: &[(History, Option<Half>)]) -> (Vec<Vec<Written>>, Vec<Vec<Noted>>) {
    let level = cell.level.parse().unwrap_or(engine::Durability::Write);
    let (mut writes, mut notes) = (Vec::new(), Vec::new());
    for client in 0..cell.plan.workload.clients() {
        let stream = cell.plan.workload.stream(level, cell.seed, round, client).into_iter().flatten();
        let owns = |half: Half| matches!(&cell.plan.workload, Workload::Queue(spec) if spec.half(half).contains(&client));
        let history = histories.iter().find(|(_, half)| half.is_none_or(owns));
        let Some((history, _)) = history else { continue };
        let (mut own, mut noted) = (Vec::new(), Vec::new());
        for (number, (slot, call)) in history.row(client).into_iter().zip(stream).enumerate() {
            if let Some(write) = Written::of(&call, None) {
                own.push(Written { slot, ..write });
                noted.push((call, history.noted(client, number as u64)));
            }
        }
        writes.push(own);
        notes.push(noted);
    }
    (writes, notes)
}

/// A call on a store, and what was noted of its answer.
type Noted = (Call, Option<Note>);

/// Fills in what calls on a queue returned: the texts are those that somebody pushed.
fn answer(writes: &mut [Vec<Written>], notes: &[Vec<Noted>], base: &Contents) {
    let mut texts: HashMap<u64, String> = HashMap::new();
    let pushed = notes.iter().flatten().filter_map(|(call, _)| match &call.action {
        Action::Push { values, .. } => Some(values.iter().map(String::as_str)),
        _ => None,
    });
    for text in pushed.flatten().chain(entries_of(base).into_iter().map(|(_, text)| text)) {
        texts.insert(fingerprint(text), text.to_owned());
    }
    for (write, (call, note)) in writes.iter_mut().flatten().zip(notes.iter().flatten()) {
        let text = |note: &Note| texts.get(&note.text).cloned().unwrap_or_else(|| format!("bytes of print {:016x}", note.text));
        if let (Action::Acknowledge { .. }, Some(note)) = (&call.action, note) {
            // Noted before the call was made, so it is known however that ended.
            let due = (note.index, text(note));
            *write = Written { slot: write.slot, ..Written::of(call, Some(&due)).unwrap_or_else(|| write.clone()) };
        }
        if !matches!(write.slot.outcome, Outcome::Acked(_)) {
            continue;
        }
        let answer = match (&call.action, note) {
            (Action::Push { .. }, Some(note)) => Answer::Pushed(note.index),
            (Action::Pop { .. } | Action::Hold, note) => Answer::Popped(note.as_ref().map(|note| (note.index, text(note)))),
            _ => Answer::Done,
        };
        write.answered(call, &answer);
    }
}

fn count_money(writes: &[Vec<Written>], notes: &[Vec<Noted>], judgement: &Judgement, contents: &Contents) -> Money {
    let mut money = Money::default();
    for (client, notes) in notes.iter().enumerate() {
        for (number, (call, _)) in notes.iter().enumerate() {
            let Meaning::Voucher { wei } = call.meaning else { continue };
            if !matches!(writes[client][number].slot.outcome, Outcome::Acked(_)) {
                continue;
            }
            money.payments_acked += 1;
            if judgement.missing[client][number] {
                money.payments_lost += 1;
                money.amount_lost += wei;
            }
        }
    }
    hub::half_states(contents, &mut money);
    money
}

/// What the kills of a cell showed so far.
#[derive(Default)]
struct Gallery {
    crash: Crash,
    recovery: Latencies,
    worst: Option<Verdict>,
    /// The store is not worth going on with.
    spoilt: bool,
    idle: u64,
}

impl Gallery {
    /// Adds a round; the contents that the next one starts from.
    fn hang(&mut self, cell: &CellPlan, shot: &Shot, round: Round) -> Contents {
        let crash = &mut self.crash;
        crash.cases += 1;
        if let Some(aim) = shot.aim {
            let aimed = crash.aimed.entry(aim.name().to_owned()).or_default();
            aimed.tried += 1;
            aimed.observed += u64::from(round.moment == aim);
        }
        let judgement = &round.judgement;
        crash.acked += judgement.acked;
        crash.promised += judgement.promised;
        crash.lost_promised += judgement.lost_promised;
        crash.lost_acked += judgement.lost_acked;
        crash.lost_acked_max = crash.lost_acked_max.max(judgement.lost_acked);
        crash.loss_window_ms_max = crash.loss_window_ms_max.max(round.window_ns as f64 / 1e6);
        self.idle += u64::from(judgement.acked == 0);
        let (verdict, words) = match &round.dump {
            Err(verdict) => (*verdict, "reading the store did not end or ended in a panic".to_owned()),
            Ok(Dump { contents: Err(e), .. }) => (Verdict::Unopenable, e.clone()),
            Ok(Dump { second_agrees: Some(false), .. }) => (Verdict::Corrupt, "a second opening finds something else".to_owned()),
            Ok(_) => match (judgement.verdict(), judgement.wrong.first()) {
                (verdict, Some(wrong)) => (verdict, wrong.clone()),
                (Verdict::Lost, None) => (Verdict::Lost, format!("{} promised writes are missing", judgement.lost_promised)),
                (verdict, None) => (verdict, String::new()),
            },
        };
        // A writer that ends by itself on a healthy store is a broken harness or a broken store; say so.
        let (verdict, words) = match (&round.early, verdict) {
            (Some(early), Verdict::Survived) => (Verdict::Unopenable, early.clone()),
            (_, verdict) => (verdict, words),
        };
        match verdict {
            Verdict::Corrupt => crash.corrupt += 1,
            Verdict::Unopenable => crash.unopenable += 1,
            Verdict::Hung => crash.hung += 1,
            _ => {}
        }
        if let Some(money) = round.money {
            add_money(crash.money.get_or_insert_default(), &money);
        }
        self.worst = self.worst.max(Some(verdict));
        self.spoilt = verdict > Verdict::NotMeasured;
        if self.spoilt && crash.findings.len() < FINDINGS {
            let id = format!("{}#{}", cell.id, shot.number);
            crash.findings.push(Finding {
                verdict,
                profile: format!("process killed {}", round.moment.name()),
                summary: words,
                replay: format!("harness replay RUN '{id}'"),
                models: Vec::new(),
                explanation: None,
                id,
            });
        }
        match round.dump {
            Ok(Dump { open_ns, contents: Ok(contents), .. }) => {
                self.recovery.record(open_ns);
                contents
            }
            _ => Contents::new(),
        }
    }

    fn close(mut self, cell: &CellPlan) -> (Crash, Verdict) {
        self.crash.recovery_ns_p50 = self.recovery.quantile(0.5);
        self.crash.recovery_ns_max = self.recovery.quantile(1.0);
        let verdict = match self.worst {
            None => Verdict::NotMeasured,
            // Kills that met no acknowledged write prove nothing.
            Some(Verdict::Survived) if self.crash.acked == 0 && cell.plan.kill.random > 0 => Verdict::HarnessBroken,
            Some(verdict) => verdict,
        };
        (self.crash, verdict)
    }
}

fn add_money(total: &mut Money, more: &Money) {
    total.payments_acked += more.payments_acked;
    total.payments_lost += more.payments_lost;
    total.amount_lost += more.amount_lost;
    total.vouchers_unredeemable += more.vouchers_unredeemable;
    for (state, n) in &more.half_states {
        *total.half_states.entry(state.clone()).or_default() += n;
    }
}
