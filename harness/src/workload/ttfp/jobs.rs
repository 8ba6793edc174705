//! The programs that use the payers: they open channels, pay, wait a little and close.

use super::outcome::Sample;
use super::party::{Channel, Message, Notice};
use super::spec::{Purpose, TtfpSpec};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::collections::HashMap;

/// All programs of a run.
pub(super) struct Jobs {
    spec: TtfpSpec,
    end: u64,
    payers: Vec<Payer>,
    open: HashMap<u64, Job>,
    pub(super) samples: Vec<Sample>,
    pub(super) payments: u64,
}

struct Payer {
    id: u32,
    random: Pcg64Mcg,
    running: u32,
    started: u64,
}

#[derive(Debug)]
struct Job {
    channel: Channel,
    wanted: u64,
    /// Syncs on the path, from the moment the channel is funded.
    syncs: f64,
}

/// What a program waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wake {
    /// The next moment at which this payer may start a channel.
    Tick(u32),
    /// The payer looks at its channel and finds it open.
    Seen(u64),
    /// The pause before closing is over.
    Held(u64),
}

/// What a program wants.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) tell: Vec<(u32, Message)>,
    pub(super) wake: Vec<(u64, Wake)>,
}

const MS: u64 = 1_000_000;

impl Jobs {
    /// No channels yet; payers start them until `duration_ms` has passed.
    pub(super) fn new(spec: &TtfpSpec, duration_ms: u64) -> Self {
        let payer = |i| Payer { id: spec.hubs + i, random: spec.random(Purpose::Payer(i)), running: 0, started: 0 };
        Self {
            end: duration_ms * MS,
            payers: (0..spec.payers).map(payer).collect(),
            open: HashMap::new(),
            samples: Vec::new(),
            payments: 0,
            spec: spec.clone(),
        }
    }

    /// The first tick of every payer.
    pub(super) fn begin(&mut self) -> Vec<(u64, Wake)> {
        let (tick, stagger) = (self.spec.tick_ms * MS, self.spec.stagger_ms * MS);
        let first = |(i, payer): (usize, &mut Payer)| (tick + payer.random.random_range(0..=stagger), Wake::Tick(i as u32));
        self.payers.iter_mut().enumerate().map(first).collect()
    }

    /// Channels under way.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn wake(&mut self, now: u64, wake: Wake) -> Wishes {
        let mut wishes = Wishes::default();
        match wake {
            Wake::Tick(i) if now < self.end => self.tick(now, i, &mut wishes),
            Wake::Tick(_) => {}
            Wake::Seen(id) => self.pay(now, id, &mut wishes),
            Wake::Held(id) => wishes.tell.extend(self.open.get(&id).map(|job| (job.channel.payer, Message::Close(job.channel)))),
        }
        wishes
    }

    fn tick(&mut self, now: u64, i: u32, wishes: &mut Wishes) {
        wishes.wake.push((now + self.spec.tick_ms * MS, Wake::Tick(i)));
        let spec = &self.spec;
        let Some(payer) = self.payers.get_mut(i as usize) else { return };
        if payer.running == spec.jobs {
            return;
        }
        payer.running += 1;
        payer.started += 1;
        let channel = Channel {
            id: u64::from(payer.id) << 32 | payer.started,
            payer: payer.id,
            hub: payer.random.random_range(0..spec.hubs),
            payee: spec.hubs + spec.payers + payer.random.random_range(0..spec.payees),
        };
        self.open.insert(channel.id, Job { channel, wanted: now, syncs: 0.0 });
        wishes.tell.push((payer.id, Message::Open(channel)));
    }

    /// The first payment and those that follow it at once.
    fn pay(&mut self, now: u64, id: u64, wishes: &mut Wishes) {
        let Some(job) = self.open.get(&id) else { return };
        let payer = job.channel.payer - self.spec.hubs;
        self.samples.push(Sample { payer, ttfp_ns: now - job.wanted, syncs: job.syncs });
        let Some(Payer { random, .. }) = self.payers.get_mut(payer as usize) else { return };
        let more = random.random_range(self.spec.more_payments_min..=self.spec.more_payments_max);
        let amounts = (0..=more).map(|n| if n == 0 { 1_000 } else { 1_000 + random.random_range(0..=999) });
        let channel = job.channel;
        wishes.tell.extend(amounts.map(|amount| (channel.payer, Message::Pay { channel, amount })));
        wishes.wake.push((now + self.spec.hold_ms * MS, Wake::Held(id)));
        self.payments += 1 + u64::from(more);
    }

    /// A payer says that a channel is open or closed; `syncs` were on the path to that.
    pub(super) fn hear(&mut self, now: u64, notice: Notice, syncs: f64) -> Option<(u64, Wake)> {
        match notice {
            Notice::Funded(channel) => {
                let job = self.open.get_mut(&channel.id)?;
                job.syncs = syncs;
                let waited = now.saturating_sub(job.wanted);
                let seen = match self.spec.poll_us * 1_000 {
                    0 => waited,
                    poll => waited.next_multiple_of(poll),
                };
                Some((job.wanted + seen, Wake::Seen(channel.id)))
            }
            Notice::Closed(channel) => {
                let job = self.open.remove(&channel.id)?;
                let payer = self.payers.get_mut((job.channel.payer - self.spec.hubs) as usize)?;
                payer.running -= 1;
                None
            }
        }
    }
}
