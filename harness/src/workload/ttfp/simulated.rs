//! The run in virtual time: servers, a network and a disk as queues, the stores in memory.
//!
//! A party takes a message when it is free. The store calls happen at once; what they cost is then
//! spent in order: the processor time of the message, after it each sync that the store called for, one
//! request to the disk after the other. Answers leave at the end of that. Syncs of an interval policy
//! are asked for when they are due and hold up their party for as long as they take, as in BuntDB,
//! which syncs under its exclusive lock.
//!
//! **Invariant:** specification, subject and policy determine the outcome.

use super::agenda::Agenda;
use super::cast::{Cast, Stage, Totals, syncs};
use super::jobs::{Jobs, Wake, Wishes};
use super::outcome::Outcome;
use super::party::{Message, Notice, Party};
use super::spec::{Disk, Purpose, Simulated, TtfpError, TtfpSpec};
use crate::measure::counters::{Calls, CountingFs};
use crate::subject::{Subject, SubjectError};
use engine::SyncPolicy;
use engine::fs::MemFs;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Runs the workload in virtual time on the machine of `spec.virtual`, or the default one.
pub fn run_virtual(spec: &TtfpSpec, subject: &dyn Subject, sync: SyncPolicy) -> Result<Outcome, TtfpError> {
    spec.validate(sync)?;
    let stage = Stage { subject, sync, dir: Path::new("/ttfp"), fs: Arc::new(MemFs::new()), background: false };
    let cast = Cast::assemble(spec, &stage)?;
    let mut world = World::new(spec, cast, sync);
    world.run()?;
    world.outcome()
}

#[derive(Debug)]
enum Event {
    Wake(Wake),
    Arrive {
        to: usize,
        message: Message,
        /// Syncs on the path so far.
        syncs: f64,
    },
    /// The processor or the disk has done its part of the message that a party handles.
    Step(usize),
    /// A store may have something to do that is due.
    Maintain(usize),
    /// A sync that holds up a party is done.
    HoldStep(usize),
}

struct World {
    machine: Simulated,
    latency: (u64, u64),
    agenda: Agenda<Event>,
    jobs: Jobs,
    servers: Vec<Server>,
    disk_free: u64,
    sync_ns: u64,
    network: Pcg64Mcg,
    /// Events and messages that can still lead to something; maintenance is not among them.
    live: u64,
    now: u64,
    messages: u64,
    hubs: usize,
    hub_waits: Vec<u64>,
    maintenance: u64,
}

/// A party with its queue.
struct Server {
    party: Party,
    counter: CountingFs,
    inbox: VecDeque<Arrived>,
    current: Option<Current>,
    hold: Option<Hold>,
    /// How long holds have kept up the current message beyond the step that is noted.
    debt: u64,
    meter: Meter,
    busy: u64,
    /// How long before the clock the store was opened.
    age: u64,
    base: (Calls, u64),
    housekeeping: Housekeeping,
}

struct Arrived {
    message: Message,
    syncs: f64,
    at: u64,
    /// The party's meter on arrival.
    mark: f64,
}

struct Current {
    began: u64,
    syncs: f64,
    mark: f64,
    /// Syncs that are still to be asked for.
    left: u64,
    out: Vec<(u32, Message)>,
    notices: Vec<Notice>,
}

struct Hold {
    began: u64,
    left: u64,
    /// The step that came due meanwhile.
    parked: Option<u64>,
}

/// Syncs of a party so far, the current one by the part that is done.
#[derive(Debug, Default)]
struct Meter {
    done: f64,
    under_way: Option<(u64, u64)>,
}

/// Keeps the simulated log from growing without end; costs no virtual time and is not counted.
struct Housekeeping {
    /// Bytes after which the log is shrunk again.
    allowance: u64,
    since: Calls,
    aside: Calls,
}

const US: u64 = 1_000;
const ALLOWANCE: u64 = 4 << 20;

impl World {
    fn new(spec: &TtfpSpec, cast: Cast, sync: SyncPolicy) -> Self {
        let machine = spec.simulated.clone().unwrap_or_default();
        let maintenance = maintenance_step(spec, sync);
        let mut ages = spec.random(Purpose::Maintenance);
        let server = |(party, counter): (Party, CountingFs)| {
            let calls = counter.calls();
            Server {
                base: (calls, party.writes()),
                age: ages.random_range(0..maintenance),
                housekeeping: Housekeeping { allowance: ALLOWANCE, since: calls, aside: Calls::default() },
                party,
                counter,
                inbox: VecDeque::new(),
                current: None,
                hold: None,
                debt: 0,
                meter: Meter::default(),
                busy: 0,
            }
        };
        Self {
            latency: ((spec.message_latency_us - spec.jitter_us) * US, (spec.message_latency_us + spec.jitter_us) * US),
            agenda: Agenda::default(),
            jobs: Jobs::new(spec, machine.duration_ms),
            servers: cast.parties.into_iter().zip(cast.counters).map(server).collect(),
            disk_free: 0,
            sync_ns: 0,
            network: spec.random(Purpose::Network),
            live: 0,
            now: 0,
            messages: 0,
            hubs: spec.hubs as usize,
            hub_waits: Vec::new(),
            maintenance,
            machine,
        }
    }

    fn run(&mut self) -> Result<(), TtfpError> {
        for (i, server) in self.servers.iter().enumerate() {
            self.agenda.note(self.maintenance - server.age, Event::Maintain(i));
        }
        let wake = self.jobs.begin();
        self.grant(Wishes { tell: Vec::new(), wake });
        while self.live > 0
            && let Some((due, event)) = self.agenda.pop()
        {
            self.now = due;
            match event {
                Event::Wake(wake) => {
                    self.live -= 1;
                    let wishes = self.jobs.wake(due, wake);
                    self.grant(wishes);
                }
                Event::Arrive { to, message, syncs } => {
                    self.arrive(to, message, syncs);
                    self.start(to)?;
                }
                Event::Step(i) => self.step(i)?,
                Event::Maintain(i) => self.maintain(i)?,
                Event::HoldStep(i) => self.hold_step(i)?,
            }
        }
        match self.jobs.open() {
            0 => Ok(()),
            open => Err(TtfpError::Stuck { open }),
        }
    }

    /// What programs want is done without a network between them and their party.
    fn grant(&mut self, wishes: Wishes) {
        for (due, wake) in wishes.wake {
            self.live += 1;
            self.agenda.note(due, Event::Wake(wake));
        }
        for (to, message) in wishes.tell {
            self.live += 1;
            self.agenda.note(self.now, Event::Arrive { to: to as usize, message, syncs: 0.0 });
        }
    }

    fn arrive(&mut self, to: usize, message: Message, syncs: f64) {
        let server = &mut self.servers[to];
        let mark = server.meter.at(self.now);
        server.inbox.push_back(Arrived { message, syncs, at: self.now, mark });
    }

    /// Takes the next message if the party is free.
    fn start(&mut self, i: usize) -> Result<(), TtfpError> {
        let server = &mut self.servers[i];
        if server.current.is_some() || server.hold.is_some() {
            return Ok(());
        }
        let Some(arrived) = server.inbox.pop_front() else { return Ok(()) };
        self.messages += 1;
        if i < self.hubs {
            self.hub_waits.push(self.now - arrived.at);
        }
        let before = syncs(server.counter.calls());
        let failed = |source| TtfpError::Store { party: i as u32, source };
        let handled = server.party.handle(arrived.message).map_err(failed)?;
        let left = syncs(server.counter.calls()) - before;
        server.keep_house().map_err(failed)?;
        let current = Current {
            began: self.now,
            syncs: arrived.syncs,
            mark: arrived.mark,
            left,
            out: handled.out,
            notices: handled.notices,
        };
        server.current = Some(current);
        let cpu = self.machine.cpu_per_message_us * US * handled.objectives;
        self.agenda.note(self.now + cpu, Event::Step(i));
        Ok(())
    }

    fn step(&mut self, i: usize) -> Result<(), TtfpError> {
        let server = &mut self.servers[i];
        if let Some(hold) = &mut server.hold {
            hold.parked = Some(self.now);
            return Ok(());
        }
        let debt = std::mem::take(&mut server.debt);
        if debt > 0 {
            self.agenda.note(self.now + debt, Event::Step(i));
            return Ok(());
        }
        server.meter.settle(self.now);
        let Some(current) = &mut server.current else { return Ok(()) };
        if current.left > 0 {
            current.left -= 1;
            let done = self.ask_disk(i);
            self.agenda.note(done, Event::Step(i));
            return Ok(());
        }
        self.finish(i);
        self.start(i)
    }

    /// The answers leave.
    fn finish(&mut self, i: usize) {
        let server = &mut self.servers[i];
        let Some(current) = server.current.take() else { return };
        self.live -= 1;
        server.busy += self.now - current.began;
        let syncs = current.syncs + server.meter.at(self.now) - current.mark;
        for (to, message) in current.out {
            let delay = self.network.random_range(self.latency.0..=self.latency.1);
            self.live += 1;
            self.agenda.note(self.now + delay, Event::Arrive { to: to as usize, message, syncs });
        }
        for notice in current.notices {
            if let Some((due, wake)) = self.jobs.hear(self.now, notice, syncs) {
                self.live += 1;
                self.agenda.note(due, Event::Wake(wake));
            }
        }
    }

    /// Asks for a sync; when it will be done.
    fn ask_disk(&mut self, i: usize) -> u64 {
        let start = match self.machine.disk {
            Disk::Parallel => self.now,
            Disk::Shared => self.disk_free.max(self.now),
        };
        let done = start + self.machine.sync_latency_us * US;
        self.disk_free = self.disk_free.max(done);
        self.sync_ns += done - self.now;
        self.servers[i].meter.begin(self.now, done);
        done
    }

    fn maintain(&mut self, i: usize) -> Result<(), TtfpError> {
        self.agenda.note(self.now + self.maintenance, Event::Maintain(i));
        let server = &mut self.servers[i];
        if server.hold.is_some() {
            // Still at it since last time.
            return Ok(());
        }
        let before = syncs(server.counter.calls());
        let age = Duration::from_nanos(self.now + server.age);
        server.party.session().maintain(age).map_err(|source| TtfpError::Store { party: i as u32, source })?;
        let left = syncs(server.counter.calls()) - before;
        if left > 0 {
            server.hold = Some(Hold { began: self.now, left, parked: None });
            self.hold_step(i)?;
        }
        Ok(())
    }

    fn hold_step(&mut self, i: usize) -> Result<(), TtfpError> {
        let server = &mut self.servers[i];
        let Some(hold) = &mut server.hold else { return Ok(()) };
        if hold.left > 0 {
            hold.left -= 1;
            let done = self.ask_disk(i);
            self.agenda.note(done, Event::HoldStep(i));
            return Ok(());
        }
        let lasted = self.now - hold.began;
        let parked = hold.parked;
        server.hold = None;
        match parked {
            Some(due) => self.agenda.note(due + lasted, Event::Step(i)),
            None if server.current.is_some() => server.debt += lasted,
            None => self.start(i)?,
        }
        Ok(())
    }

    fn outcome(self) -> Result<Outcome, TtfpError> {
        let mut totals = Totals::default();
        for server in &self.servers {
            let aside = server.housekeeping.aside;
            let (calls, writes) = server.base;
            totals.add(server.counter.calls().since(calls).since(aside), server.party.writes() - writes);
        }
        let busiest = self.servers[..self.hubs].iter().map(|hub| hub.busy).max().unwrap_or(0);
        for (i, server) in self.servers.into_iter().enumerate() {
            server.party.close().map_err(|source| TtfpError::Store { party: i as u32, source })?;
        }
        if self.jobs.samples.is_empty() {
            return Err(TtfpError::Nothing);
        }
        Ok(Outcome {
            samples: self.jobs.samples,
            payments: self.jobs.payments,
            messages: self.messages,
            writes: totals.writes,
            syncs: totals.syncs,
            bytes: totals.bytes,
            sync_ns: self.sync_ns,
            hub_busy: busiest as f64 / self.now.max(1) as f64,
            hub_waits_ns: self.hub_waits,
            wall_ns: self.now,
            simulated: Some(self.machine),
        })
    }
}

impl Server {
    fn keep_house(&mut self) -> Result<(), SubjectError> {
        let before = self.counter.calls();
        let house = &mut self.housekeeping;
        if before.since(house.since).bytes < house.allowance {
            return Ok(());
        }
        let shrunk = self.party.session().shrink()?;
        let after = self.counter.calls();
        let cost = after.since(before);
        house.aside = plus(house.aside, cost);
        house.since = after;
        house.allowance = if shrunk { ALLOWANCE.max(2 * cost.bytes) } else { u64::MAX };
        Ok(())
    }
}

impl Meter {
    fn at(&self, now: u64) -> f64 {
        let part = self.under_way.map_or(
            0.0,
            |(began, done)| {
                if now >= done { 1.0 } else { (now - began) as f64 / (done - began) as f64 }
            },
        );
        self.done + part
    }

    fn begin(&mut self, now: u64, done: u64) {
        self.settle(u64::MAX);
        self.under_way = Some((now, done));
    }

    /// Counts the sync under way if it is done.
    fn settle(&mut self, now: u64) {
        if self.under_way.take_if(|(_, done)| *done <= now).is_some() {
            self.done += 1.0;
        }
    }
}

/// How often stores are asked whether something is due: at the shortest interval among the policies, but
/// not more than ten times a millisecond.
fn maintenance_step(spec: &TtfpSpec, sync: SyncPolicy) -> u64 {
    let own = spec.per_store.values().map(|policy| policy.0);
    let intervals = own.chain([sync]).filter_map(|policy| match policy {
        SyncPolicy::Interval(d) => Some(d.as_nanos() as u64),
        _ => None,
    });
    const DAY: u64 = 86_400_000_000_000;
    intervals.min().unwrap_or(100_000_000).clamp(100_000, DAY)
}

fn plus(a: Calls, b: Calls) -> Calls {
    Calls { bytes: a.bytes + b.bytes, syncs: a.syncs + b.syncs, dir_syncs: a.dir_syncs + b.dir_syncs }
}
