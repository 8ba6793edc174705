//! The run on the real disk: a thread for each party, and one for the network and the programs.

use super::agenda::Agenda;
use super::cast::{Cast, Stage, Totals, syncs};
use super::jobs::{Jobs, Wake, Wishes};
use super::metered::MeteredFs;
use super::outcome::Outcome;
use super::party::{Handled, Message, Party};
use super::spec::{Purpose, TtfpError, TtfpSpec};
use crate::measure::clock::Clock;
use crate::measure::counters::{Calls, CountingFs};
use crate::subject::{Subject, SubjectError};
use engine::SyncPolicy;
use engine::fs::RealFs;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Runs the workload on the real disk, with a directory for each party below `dir`.
pub fn run_real(spec: &TtfpSpec, subject: &dyn Subject, sync: SyncPolicy, dir: &Path) -> Result<Outcome, TtfpError> {
    spec.validate(sync)?;
    let meter = MeteredFs::new(Arc::new(RealFs));
    let stage = Stage { subject, sync, dir, fs: Arc::new(meter.clone()), background: true };
    let Cast { parties, counters } = Cast::assemble(spec, &stage)?;
    let base: Vec<(Calls, u64)> = counters.iter().zip(&parties).map(|(c, p)| (c.calls(), p.writes())).collect();
    let before = meter.spent();
    let clock = Clock::start();
    let (report, reports) = channel();
    let (exchange, engines) = std::thread::scope(|scope| {
        let mut inboxes = Vec::new();
        let mut threads = Vec::new();
        for (id, (party, counter)) in parties.into_iter().zip(counters.iter().cloned()).enumerate() {
            let (inbox, arrivals) = channel();
            let engine = Engine { id, party, counter, clock, busy: 0, waits: Vec::new() };
            let report = report.clone();
            inboxes.push(inbox);
            threads.push(scope.spawn(move || engine.run(&arrivals, &report)));
        }
        drop(report);
        let mut exchange = Exchange::new(spec, clock, inboxes, &counters);
        let outcome = exchange.run(&reports);
        // Without inboxes the engines end.
        let exchange = outcome.map(|()| exchange.close());
        let joined = threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (exchange, joined.collect::<Vec<Engine>>())
    });
    let done = exchange?;
    let after = meter.spent();
    let mut totals = Totals::default();
    for (((calls, writes), counter), engine) in base.iter().zip(&counters).zip(&engines) {
        totals.add(counter.calls().since(*calls), engine.party.writes() - writes);
    }
    let hubs = spec.hubs as usize;
    let outcome = Outcome {
        samples: done.jobs.samples,
        payments: done.jobs.payments,
        messages: done.messages,
        writes: totals.writes,
        syncs: totals.syncs,
        bytes: totals.bytes,
        sync_ns: after.1 - before.1,
        hub_busy: engines[..hubs].iter().map(|hub| hub.busy).max().unwrap_or(0) as f64 / done.wall.max(1) as f64,
        hub_waits_ns: engines[..hubs].iter().flat_map(|hub| hub.waits.iter().copied()).collect(),
        wall_ns: done.wall,
        simulated: None,
    };
    for engine in engines {
        let party = engine.id as u32;
        engine.party.close().map_err(|source| TtfpError::Store { party, source })?;
    }
    if outcome.samples.is_empty() { Err(TtfpError::Nothing) } else { Ok(outcome) }
}

/// A message in the inbox of a party.
struct Arrived {
    message: Message,
    /// Syncs on the path so far.
    syncs: u64,
    at: u64,
    /// Syncs of this party so far.
    mark: u64,
}

/// What an engine tells the exchange after a message.
struct Report {
    party: usize,
    at: u64,
    /// Syncs on the path, with those of this message.
    syncs: u64,
    handled: Result<Handled, SubjectError>,
}

/// The loop of one party.
struct Engine {
    id: usize,
    party: Party,
    counter: CountingFs,
    clock: Clock,
    busy: u64,
    waits: Vec<u64>,
}

impl Engine {
    fn run(mut self, arrivals: &Receiver<Arrived>, report: &Sender<Report>) -> Self {
        while let Ok(arrived) = arrivals.recv() {
            let began = self.clock.now();
            self.waits.push(began.saturating_sub(arrived.at));
            let handled = self.party.handle(arrived.message);
            let at = self.clock.now();
            self.busy += at - began;
            let syncs = arrived.syncs + syncs(self.counter.calls()) - arrived.mark;
            let failed = handled.is_err();
            let told = report.send(Report { party: self.id, at, syncs, handled });
            if failed || told.is_err() {
                break;
            }
        }
        self
    }
}

/// The network between the parties, and the programs that use them.
struct Exchange<'a> {
    clock: Clock,
    agenda: Agenda<Due>,
    jobs: Jobs,
    inboxes: Vec<Sender<Arrived>>,
    counters: &'a [CountingFs],
    network: Pcg64Mcg,
    latency: (u64, u64),
    /// Messages and moments that can still lead to something.
    live: u64,
    messages: u64,
    deadline: u64,
}

enum Due {
    Wake(Wake),
    Deliver { to: u32, message: Message, syncs: u64 },
}

/// What is left of an exchange when all is done.
struct Done {
    jobs: Jobs,
    messages: u64,
    wall: u64,
}

/// How long channels may take to close after the last was opened.
const PATIENCE_MS: u64 = 120_000;

impl<'a> Exchange<'a> {
    fn new(spec: &TtfpSpec, clock: Clock, inboxes: Vec<Sender<Arrived>>, counters: &'a [CountingFs]) -> Self {
        Self {
            clock,
            agenda: Agenda::default(),
            jobs: Jobs::new(spec, spec.duration_ms),
            inboxes,
            counters,
            network: spec.random(Purpose::Network),
            latency: ((spec.message_latency_us - spec.jitter_us) * 1_000, (spec.message_latency_us + spec.jitter_us) * 1_000),
            live: 0,
            messages: 0,
            deadline: (spec.duration_ms + PATIENCE_MS) * 1_000_000,
        }
    }

    fn run(&mut self, reports: &Receiver<Report>) -> Result<(), TtfpError> {
        let wake = self.jobs.begin();
        self.grant(Wishes { tell: Vec::new(), wake });
        while self.live > 0 {
            let now = self.clock.now();
            if now > self.deadline {
                break;
            }
            if self.agenda.next_due().is_some_and(|due| due <= now)
                && let Some((_, due)) = self.agenda.pop()
            {
                self.do_due(due);
                continue;
            }
            let next = self.agenda.next_due().unwrap_or(self.deadline).min(self.deadline);
            match reports.recv_timeout(Duration::from_nanos(next.saturating_sub(now))) {
                Ok(report) => self.hear(report)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match self.jobs.open() {
            0 => Ok(()),
            open => Err(TtfpError::Stuck { open }),
        }
    }

    fn do_due(&mut self, due: Due) {
        match due {
            Due::Wake(wake) => {
                self.live -= 1;
                let wishes = self.jobs.wake(self.clock.now(), wake);
                self.grant(wishes);
            }
            Due::Deliver { to, message, syncs } => self.deliver(to, message, syncs),
        }
    }

    /// What programs want is done without a network between them and their party.
    fn grant(&mut self, wishes: Wishes) {
        self.live += (wishes.wake.len() + wishes.tell.len()) as u64;
        for (due, wake) in wishes.wake {
            self.agenda.note(due, Due::Wake(wake));
        }
        for (to, message) in wishes.tell {
            self.deliver(to, message, 0);
        }
    }

    fn deliver(&mut self, to: u32, message: Message, path: u64) {
        let mark = syncs(self.counters[to as usize].calls());
        self.messages += 1;
        // An engine that is gone has reported why.
        let _ = self.inboxes[to as usize].send(Arrived { message, syncs: path, at: self.clock.now(), mark });
    }

    fn hear(&mut self, report: Report) -> Result<(), TtfpError> {
        let Handled { out, notices, .. } =
            report.handled.map_err(|source| TtfpError::Store { party: report.party as u32, source })?;
        self.live -= 1;
        self.live += out.len() as u64;
        for (to, message) in out {
            let delay = self.network.random_range(self.latency.0..=self.latency.1);
            self.agenda.note(report.at + delay, Due::Deliver { to, message, syncs: report.syncs });
        }
        for notice in notices {
            if let Some((due, wake)) = self.jobs.hear(report.at, notice, report.syncs as f64) {
                self.live += 1;
                self.agenda.note(due, Due::Wake(wake));
            }
        }
        Ok(())
    }

    fn close(self) -> Done {
        Done { wall: self.clock.now(), jobs: self.jobs, messages: self.messages }
    }
}
