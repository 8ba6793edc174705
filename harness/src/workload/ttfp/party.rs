//! One party's part in the protocols: what it does with a message, and what it answers.
//!
//! A payment channel is opened (everybody hears everybody's `Prefund`, the ends propose a guarantee to
//! the hub, the hub countersigns, everybody announces `Postfund`), paid through, and closed
//! (everybody hears everybody's `Final`, the ends propose to remove the guarantee, the hub
//! countersigns). Ledgers between the hub and the others are funded the same way beforehand.
//!
//! Every arrival is one loading and one storing of its objective, whatever the order of arrivals; an
//! objective that is complete is loaded and left alone. Proposals of one ledger are countersigned in
//! their order, and each proposal is sent with all earlier ones that are not countersigned yet.
//!
//! **Invariant:** no clock, no threads, no randomness: the same messages in the same order give the same
//! store calls and the same answers.

use super::books::{Books, Filing, Kind, LedgerEntry};
use super::spec::TtfpSpec;
use crate::subject::{Session, SubjectError};
use std::collections::{HashMap, VecDeque};

/// A payment channel and who takes part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) id: u64,
    pub(super) payer: u32,
    pub(super) hub: u32,
    pub(super) payee: u32,
}

/// What a party is told, by another party or by the program that uses it.
#[derive(Clone, Debug)]
pub(super) enum Message {
    /// The program wants a ledger channel with this hub.
    FundLedger { hub: u32 },
    /// The other side agrees to a ledger channel.
    LedgerPrefund { from: u32 },
    /// The chain has seen somebody's deposit for the ledger with `peer`.
    LedgerDeposit { peer: u32, own: bool },
    /// The other side has seen both deposits.
    LedgerPostfund { from: u32 },
    /// The program wants a payment channel.
    Open(Channel),
    /// A participant agrees to the channel.
    Prefund { from: u32, channel: Channel },
    /// An end asks the hub to change their ledger; earlier proposals may come along again.
    Propose { from: u32, proposals: Vec<Proposal> },
    /// The hub agrees to a change of the ledger and to all before it.
    Countersign { from: u32, proposal: Proposal },
    /// A participant holds the channel for funded.
    Postfund { from: u32, channel: Channel },
    /// The program wants to pay.
    Pay { channel: Channel, amount: u64 },
    /// A payment.
    Voucher { channel: Channel, paid: u64 },
    /// The program wants to close the channel.
    Close(Channel),
    /// A participant agrees to close the channel.
    Final { from: u32, channel: Channel },
}

/// A change of a ledger: a guarantee for a channel is added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    turn: u64,
    stage: Stage,
    channel: Channel,
}

/// The two objectives in the life of a payment channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fund,
    Defund,
}

/// What a party tells the program that uses it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    /// The payer may pay.
    Funded(Channel),
    /// The payer is done with the channel.
    Closed(Channel),
}

/// What came of a message.
#[derive(Debug, Default)]
pub(super) struct Handled {
    pub(super) out: Vec<(u32, Message)>,
    pub(super) notices: Vec<Notice>,
    /// Objectives that were taken up; never less than one.
    pub(super) objectives: u64,
}

/// A party: its store and what it remembers.
pub(super) struct Party {
    id: u32,
    books: Books,
    ledgers: HashMap<u32, Ledger>,
    deals: HashMap<u64, Deal>,
}

/// The ledger channel with another party.
#[derive(Debug)]
struct Ledger {
    key: String,
    /// Open guarantees.
    guarantees: usize,
    /// Proposed and not countersigned.
    queue: VecDeque<Proposal>,
    /// The last turn that was proposed.
    turn: u64,
    funding: Funding,
}

#[derive(Debug, Default)]
struct Funding {
    step: u32,
    deposits: u32,
    complete: bool,
}

/// A payment channel as one participant sees it.
#[derive(Debug)]
struct Deal {
    key: String,
    fund: Progress,
    defund: Progress,
    paid: u64,
    /// Wishes to close that came before the channel was open.
    early: Vec<Message>,
}

/// How far an objective is. Sets of participants are bits, see [`Channel::seat`].
#[derive(Debug, Default)]
struct Progress {
    /// How often it was stored; zero means that it is unknown.
    step: u32,
    /// Who agreed.
    agreed: u8,
    /// Who announced that all is done.
    announced: u8,
    proposed: bool,
    /// Whose ledger has changed.
    settled: u8,
    complete: bool,
}

const PAYER: u8 = 1;
const HUB: u8 = 2;
const PAYEE: u8 = 4;
const ALL: u8 = PAYER | HUB | PAYEE;

impl Channel {
    fn seat(&self, party: u32) -> u8 {
        if party == self.payer {
            PAYER
        } else if party == self.hub {
            HUB
        } else {
            PAYEE
        }
    }

    fn others(&self, party: u32) -> impl Iterator<Item = u32> {
        // The order in which go-nitro addresses them: the hub first, else the payer first.
        [self.payer, self.hub, self.payee].into_iter().filter(move |other| *other != party)
    }
}

impl Party {
    pub(super) fn new(id: u32, spec: &TtfpSpec, session: Box<dyn Session>) -> Self {
        Self { id, books: Books::new(spec, session), ledgers: HashMap::new(), deals: HashMap::new() }
    }

    pub(super) fn session(&self) -> &dyn Session {
        self.books.session()
    }

    /// Acknowledged changes of the store so far.
    pub(super) fn writes(&self) -> u64 {
        self.books.writes()
    }

    pub(super) fn close(self) -> Result<(), SubjectError> {
        self.books.close()
    }

    /// One turn of the engine loop. What comes out may leave when this returns.
    pub(super) fn handle(&mut self, message: Message) -> Result<Handled, SubjectError> {
        let mut turn = Handled::default();
        self.take(message, &mut turn)?;
        self.books.end_turn()?;
        turn.objectives = turn.objectives.max(1);
        Ok(turn)
    }

    fn take(&mut self, message: Message, turn: &mut Handled) -> Result<(), SubjectError> {
        match message {
            Message::FundLedger { hub } => self.fund_ledger(hub, turn),
            Message::LedgerPrefund { from } => self.ledger_prefund(from, turn),
            Message::LedgerDeposit { peer, own } => self.ledger_deposit(peer, own, turn),
            Message::LedgerPostfund { from } => self.ledger_postfund(from),
            Message::Open(channel) => self.open(channel, turn),
            Message::Prefund { from, channel } => self.prefund(from, channel, turn),
            Message::Propose { from, proposals } => self.propose(from, &proposals, turn),
            Message::Countersign { from, proposal } => self.countersign(from, proposal, turn),
            Message::Postfund { from, channel } => self.postfund(from, channel, turn),
            Message::Pay { channel, amount } => self.pay(channel, amount, turn),
            Message::Voucher { channel, paid } => self.voucher(channel, paid),
            Message::Close(channel) => self.close_channel(channel, turn),
            Message::Final { from, channel } => self.finalise(from, channel, turn),
        }
    }

    // Ledgers.

    fn ledger(&mut self, peer: u32) -> &mut Ledger {
        let ends = (self.id.min(peer), self.id.max(peer));
        self.ledgers.entry(peer).or_insert_with(|| Ledger {
            key: channel_key(0x1ed6_e500_0000_0000, u64::from(ends.0) << 32 | u64::from(ends.1)),
            guarantees: 0,
            queue: VecDeque::new(),
            turn: 0,
            funding: Funding::default(),
        })
    }

    fn fund_ledger(&mut self, hub: u32, turn: &mut Handled) -> Result<(), SubjectError> {
        let key = self.ledger(hub).key.clone();
        self.books.look_at_channel(&key)?;
        self.file_funding(hub, true)?;
        turn.out.push((hub, Message::LedgerPrefund { from: self.id }));
        Ok(())
    }

    fn ledger_prefund(&mut self, from: u32, turn: &mut Handled) -> Result<(), SubjectError> {
        let known = self.load_funding(from)?;
        if known {
            self.file_funding(from, false)?;
            self.deposit(from, turn);
        } else {
            self.file_funding(from, false)?;
            self.file_funding(from, true)?;
            turn.out.push((from, Message::LedgerPrefund { from: self.id }));
        }
        Ok(())
    }

    /// The chain tells both sides of a deposit.
    fn deposit(&self, peer: u32, turn: &mut Handled) {
        turn.out.push((self.id, Message::LedgerDeposit { peer, own: true }));
        turn.out.push((peer, Message::LedgerDeposit { peer: self.id, own: false }));
    }

    fn ledger_deposit(&mut self, peer: u32, own: bool, turn: &mut Handled) -> Result<(), SubjectError> {
        let key = self.ledger(peer).key.clone();
        self.books.look_for_owner(&key)?;
        self.load_funding(peer)?;
        self.file_funding(peer, false)?;
        let funding = &mut self.ledger(peer).funding;
        funding.deposits += 1;
        match (funding.deposits, own) {
            // The initiator deposits first, the hub when it sees that.
            (1, false) => self.deposit(peer, turn),
            (2, _) => turn.out.push((peer, Message::LedgerPostfund { from: self.id })),
            _ => {}
        }
        Ok(())
    }

    fn ledger_postfund(&mut self, from: u32) -> Result<(), SubjectError> {
        self.load_funding(from)?;
        self.file_funding(from, false)?;
        let ledger = self.ledger(from);
        ledger.funding.complete = true;
        let key = ledger.key.clone();
        self.books.release(&key)?;
        self.books.open_ledger(&key)
    }

    fn load_funding(&mut self, peer: u32) -> Result<bool, SubjectError> {
        let key = self.ledger(peer).key.clone();
        self.books.load(Kind::DirectFund, &key, &[])
    }

    fn file_funding(&mut self, peer: u32, take_ownership: bool) -> Result<(), SubjectError> {
        let ledger = self.ledger(peer);
        let (channel, step) = (ledger.key.clone(), ledger.funding.step);
        ledger.funding.step += 1;
        let filing = Filing {
            kind: Kind::DirectFund,
            channel: &channel,
            ledgers: &[],
            hub: false,
            step,
            take_ownership,
            reloaded: step > 0,
        };
        self.books.file(&filing)
    }

    /// Whether the ledger with this party can carry payment channels.
    pub(super) fn ledger_is_open(&self, peer: u32) -> bool {
        self.ledgers.get(&peer).is_some_and(|ledger| ledger.funding.complete)
    }

    // Payment channels: opening.

    fn open(&mut self, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        let ledgers = self.ledger_entries(&channel);
        self.books.look_for_ledgers(&ledgers)?;
        self.begin(Stage::Fund, channel, None, turn)
    }

    fn prefund(&mut self, from: u32, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        self.agree(Stage::Fund, from, channel, turn)
    }

    fn postfund(&mut self, from: u32, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        self.load(Stage::Fund, &channel)?;
        if self.is_complete(Stage::Fund, &channel) {
            return Ok(());
        }
        self.deal(channel).fund.announced |= channel.seat(from);
        self.advance(Stage::Fund, channel, turn)
    }

    // Payments.

    fn pay(&mut self, channel: Channel, amount: u64, turn: &mut Handled) -> Result<(), SubjectError> {
        let deal = self.deal(channel);
        deal.paid = deal.paid.saturating_add(amount);
        let (key, paid) = (deal.key.clone(), deal.paid);
        self.books.note_voucher(&key, paid)?;
        self.books.look_at_channel(&key)?;
        turn.out.push((channel.payee, Message::Voucher { channel, paid }));
        Ok(())
    }

    fn voucher(&mut self, channel: Channel, paid: u64) -> Result<(), SubjectError> {
        let deal = self.deal(channel);
        if deal.defund.complete {
            return Ok(());
        }
        deal.paid = deal.paid.max(paid);
        let key = deal.key.clone();
        self.books.note_voucher(&key, paid)
    }

    // Payment channels: closing.

    fn close_channel(&mut self, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        let key = self.deal(channel).key.clone();
        self.books.look_at_channel(&key)?;
        let ledgers = self.ledger_entries(&channel);
        self.books.look_for_ledgers(&ledgers)?;
        self.begin(Stage::Defund, channel, None, turn)
    }

    fn finalise(&mut self, from: u32, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        if !self.is_complete(Stage::Fund, &channel) {
            // A payer that closes too early would break its peers (go-nitro issue 744); here they wait.
            self.load(Stage::Defund, &channel)?;
            self.deal(channel).early.push(Message::Final { from, channel });
            return Ok(());
        }
        self.agree(Stage::Defund, from, channel, turn)
    }

    // What both stages share.

    /// Somebody agrees; whoever hears of the objective for the first time agrees as well.
    fn agree(&mut self, stage: Stage, from: u32, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        let known = self.load(stage, &channel)?;
        if self.is_complete(stage, &channel) {
            return Ok(());
        }
        if known {
            self.deal(channel).progress(stage).agreed |= channel.seat(from);
            return self.advance(stage, channel, turn);
        }
        if stage == Stage::Defund {
            let key = self.deal(channel).key.clone();
            self.books.look_at_channel(&key)?;
        }
        let ledgers = self.ledger_entries(&channel);
        self.books.look_for_ledgers(&ledgers)?;
        // Stored as it came in; then approved and stored again.
        self.file(stage, &channel, false, false)?;
        self.begin(stage, channel, Some(from), turn)
    }

    /// Takes an objective up and tells the other participants.
    fn begin(&mut self, stage: Stage, channel: Channel, from: Option<u32>, turn: &mut Handled) -> Result<(), SubjectError> {
        let own = channel.seat(self.id);
        let deal = self.deal(channel);
        deal.progress(stage).agreed |= own | from.map_or(0, |from| channel.seat(from));
        if stage == Stage::Fund {
            let key = deal.key.clone();
            self.books.note_voucher(&key, 0)?;
        }
        let me = self.id;
        turn.out.extend(channel.others(me).map(|to| match stage {
            Stage::Fund => (to, Message::Prefund { from: me, channel }),
            Stage::Defund => (to, Message::Final { from: me, channel }),
        }));
        turn.objectives += 1;
        self.file(stage, &channel, true, false)
    }

    /// An end's proposals for the ledger arrive at the hub.
    fn propose(&mut self, from: u32, proposals: &[Proposal], turn: &mut Handled) -> Result<(), SubjectError> {
        for &proposal in proposals {
            let Proposal { stage, channel, .. } = proposal;
            self.load(stage, &channel)?;
            let ledger = self.ledger(from);
            // An older turn came along with a newer one and was dealt with, or soon will be.
            if proposal.turn == ledger.turn + 1 {
                ledger.turn = proposal.turn;
                ledger.queue.push_back(proposal);
            }
            if !self.is_complete(stage, &channel) {
                self.advance(stage, channel, turn)?;
            }
        }
        Ok(())
    }

    /// The hub has countersigned a proposal of ours.
    fn countersign(&mut self, from: u32, proposal: Proposal, turn: &mut Handled) -> Result<(), SubjectError> {
        self.load(proposal.stage, &proposal.channel)?;
        let own = proposal.channel.seat(self.id);
        while let Some(head) = self.ledger(from).queue.front().copied()
            && head.turn <= proposal.turn
        {
            self.settle(from, head, own);
        }
        if self.is_complete(proposal.stage, &proposal.channel) {
            return Ok(());
        }
        self.advance(proposal.stage, proposal.channel, turn)
    }

    /// The head of the ledger's queue takes effect.
    fn settle(&mut self, peer: u32, proposal: Proposal, side: u8) {
        let ledger = self.ledger(peer);
        ledger.queue.pop_front();
        ledger.guarantees = match proposal.stage {
            Stage::Fund => ledger.guarantees + 1,
            Stage::Defund => ledger.guarantees.saturating_sub(1),
        };
        self.deal(proposal.channel).progress(proposal.stage).settled |= side;
    }

    /// Takes all steps that are possible and stores the objective; goes on with objectives whose
    /// proposals became the first of their ledgers.
    fn advance(&mut self, stage: Stage, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        let mut uncovered = self.step(stage, channel, turn)?;
        while let Some(next) = uncovered.pop() {
            self.load(next.stage, &next.channel)?;
            uncovered.extend(self.step(next.stage, next.channel, turn)?);
        }
        Ok(())
    }

    fn step(&mut self, stage: Stage, channel: Channel, turn: &mut Handled) -> Result<Vec<Proposal>, SubjectError> {
        turn.objectives += 1;
        let uncovered = if self.id == channel.hub {
            self.step_hub(stage, channel, turn)
        } else {
            self.step_end(stage, channel, turn);
            Vec::new()
        };
        self.file(stage, &channel, false, true)?;
        if self.is_complete(stage, &channel) {
            self.finish(stage, channel, turn)?;
        }
        Ok(uncovered)
    }

    fn step_end(&mut self, stage: Stage, channel: Channel, turn: &mut Handled) {
        let (me, own) = (self.id, channel.seat(self.id));
        let progress = self.deal(channel).progress(stage);
        if progress.agreed == ALL && !progress.proposed {
            progress.proposed = true;
            let ledger = self.ledger(channel.hub);
            ledger.turn += 1;
            ledger.queue.push_back(Proposal { turn: ledger.turn, stage, channel });
            let proposals = ledger.queue.iter().copied().collect();
            turn.out.push((channel.hub, Message::Propose { from: me, proposals }));
        }
        let progress = self.deal(channel).progress(stage);
        let settled = progress.settled == own;
        match stage {
            Stage::Fund => {
                if settled && progress.announced & own == 0 {
                    progress.announced |= own;
                    turn.out.extend(channel.others(me).map(|to| (to, Message::Postfund { from: me, channel })));
                }
                progress.complete = progress.announced == ALL;
            }
            Stage::Defund => progress.complete = settled,
        }
    }

    fn step_hub(&mut self, stage: Stage, channel: Channel, turn: &mut Handled) -> Vec<Proposal> {
        let me = self.id;
        let mut uncovered = Vec::new();
        if self.deal(channel).progress(stage).agreed == ALL {
            for end in [channel.payer, channel.payee] {
                let head = self.ledger(end).queue.front().copied();
                let Some(proposal) = head.filter(|p| p.stage == stage && p.channel == channel) else { continue };
                self.settle(end, proposal, channel.seat(end));
                turn.out.push((end, Message::Countersign { from: me, proposal }));
                uncovered.extend(self.ledger(end).queue.front().copied());
            }
        }
        let progress = self.deal(channel).progress(stage);
        if progress.settled == PAYER | PAYEE && !progress.complete {
            progress.complete = true;
            if stage == Stage::Fund {
                turn.out.extend(channel.others(me).map(|to| (to, Message::Postfund { from: me, channel })));
            }
        }
        uncovered
    }

    /// What follows the last storing of an objective.
    fn finish(&mut self, stage: Stage, channel: Channel, turn: &mut Handled) -> Result<(), SubjectError> {
        let (is_payer, deal) = (self.id == channel.payer, self.deal(channel));
        let (key, early) = (deal.key.clone(), std::mem::take(&mut deal.early));
        self.books.release(&key)?;
        match stage {
            Stage::Fund => turn.notices.extend(is_payer.then_some(Notice::Funded(channel))),
            Stage::Defund => {
                self.books.forget_vouchers(&key)?;
                turn.notices.extend(is_payer.then_some(Notice::Closed(channel)));
            }
        }
        early.into_iter().try_for_each(|message| self.take(message, turn))
    }

    // Memory and store.

    fn deal(&mut self, channel: Channel) -> &mut Deal {
        self.deals.entry(channel.id).or_insert_with(|| Deal {
            key: channel_key(0x9a7c_4a00_0000_0000, channel.id),
            fund: Progress::default(),
            defund: Progress::default(),
            paid: 0,
            early: Vec::new(),
        })
    }

    fn is_complete(&mut self, stage: Stage, channel: &Channel) -> bool {
        self.deal(*channel).progress(stage).complete
    }

    fn ledger_entries(&mut self, channel: &Channel) -> Vec<LedgerEntry> {
        let peers = if self.id == channel.hub { vec![channel.payer, channel.payee] } else { vec![channel.hub] };
        let entry =
            |ledger: &Ledger| LedgerEntry { key: ledger.key.clone(), guarantees: ledger.guarantees, queued: ledger.queue.len() };
        peers.into_iter().map(|peer| entry(self.ledger(peer))).collect()
    }

    fn load(&mut self, stage: Stage, channel: &Channel) -> Result<bool, SubjectError> {
        let ledgers = self.ledger_entries(channel);
        let key = self.deal(*channel).key.clone();
        self.books.load(stage.kind(), &key, &ledgers)
    }

    fn file(&mut self, stage: Stage, channel: &Channel, take_ownership: bool, reloaded: bool) -> Result<(), SubjectError> {
        let ledgers = self.ledger_entries(channel);
        let hub = self.id == channel.hub;
        let deal = self.deal(*channel);
        let key = deal.key.clone();
        let progress = deal.progress(stage);
        let step = progress.step;
        progress.step += 1;
        let filing = Filing { kind: stage.kind(), channel: &key, ledgers: &ledgers, hub, step, take_ownership, reloaded };
        self.books.file(&filing)
    }
}

impl Deal {
    fn progress(&mut self, stage: Stage) -> &mut Progress {
        match stage {
            Stage::Fund => &mut self.fund,
            Stage::Defund => &mut self.defund,
        }
    }
}

impl Stage {
    fn kind(self) -> Kind {
        match self {
            Stage::Fund => Kind::VirtualFund,
            Stage::Defund => Kind::VirtualDefund,
        }
    }
}

/// A channel's key: 32 bytes in hexadecimal, like a hash.
fn channel_key(space: u64, id: u64) -> String {
    let mut state = space ^ id;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let (a, b, c, d) = (next(), next(), next(), next());
    format!("0x{a:016x}{b:016x}{c:016x}{d:016x}")
}

/// Funds every ledger, message by message in order of sending, before anything is measured.
pub(super) fn fund_ledgers(parties: &mut [Party], hubs: u32) -> Result<(), (u32, SubjectError)> {
    for id in hubs..parties.len() as u32 {
        let mut under_way: VecDeque<(u32, Message)> = (0..hubs).map(|hub| (id, Message::FundLedger { hub })).collect();
        while let Some((to, message)) = under_way.pop_front() {
            let Some(party) = parties.get_mut(to as usize) else { continue };
            under_way.extend(party.handle(message).map_err(|e| (to, e))?.out);
        }
    }
    debug_assert!(parties.iter().skip(hubs as usize).all(|party| (0..hubs).all(|hub| party.ledger_is_open(hub))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::typed::Typed;
    use crate::subject::{Site, Subject};
    use engine::SyncPolicy;
    use engine::fs::MemFs;
    use std::path::Path;
    use std::sync::Arc;

    const OPEN_X: Channel = Channel { id: 1, payer: 1, hub: 0, payee: 2 };
    const OPEN_Y: Channel = Channel { id: 2, payer: 1, hub: 0, payee: 3 };

    fn hub() -> Party {
        let spec = TtfpSpec::default();
        let (fs, tables) = (Arc::new(MemFs::new()), spec.tables());
        let site = Site { dir: Path::new("/"), fs, sync: SyncPolicy::Never, tables: &tables, background: false };
        Party::new(0, &spec, Typed.open(&site).unwrap())
    }

    fn add(turn: u64, channel: Channel) -> Proposal {
        Proposal { turn, stage: Stage::Fund, channel }
    }

    fn countersigned(handled: &Handled) -> Vec<(u32, u64)> {
        let signed = |(to, message): &(u32, Message)| match message {
            Message::Countersign { proposal, .. } => Some((*to, proposal.channel.id)),
            _ => None,
        };
        handled.out.iter().filter_map(signed).collect()
    }

    #[test]
    fn proposals_are_countersigned_in_order_and_those_behind_are_taken_up_again() {
        let mut hub = hub();
        for (from, channel) in [(1, OPEN_X), (1, OPEN_Y), (3, OPEN_Y)] {
            hub.handle(Message::Prefund { from, channel }).unwrap();
        }
        let of_payee = hub.handle(Message::Propose { from: 3, proposals: vec![add(1, OPEN_Y)] }).unwrap();
        assert_eq!(countersigned(&of_payee), [(3, 2)]);
        // Y is ready, but the payer proposed X first, and its payee has not been heard of.
        let of_payer = hub.handle(Message::Propose { from: 1, proposals: vec![add(1, OPEN_X), add(2, OPEN_Y)] }).unwrap();
        assert_eq!((countersigned(&of_payer), of_payer.objectives), (vec![], 2));
        let heard = hub.handle(Message::Prefund { from: 2, channel: OPEN_X }).unwrap();
        assert_eq!(countersigned(&heard), [(1, 1), (1, 2)]);
        let funded = heard.out.iter().filter(|(_, m)| matches!(m, Message::Postfund { channel, .. } if channel.id == 2));
        assert_eq!(funded.count(), 2);
    }

    #[test]
    fn a_proposal_that_came_before_is_stored_but_not_signed_again() {
        let mut hub = hub();
        for from in [1, 2] {
            hub.handle(Message::Prefund { from, channel: OPEN_X }).unwrap();
        }
        let again = Message::Propose { from: 1, proposals: vec![add(1, OPEN_X)] };
        assert_eq!(countersigned(&hub.handle(again.clone()).unwrap()), [(1, 1)]);
        let before = hub.writes();
        assert_eq!(countersigned(&hub.handle(again).unwrap()), []);
        assert_eq!(hub.writes() - before, 4);
    }
}
