//! The protocol as steps that happen in any order: what is sent, carried out and received are steps of their own, and between any two of
//! them anything else may happen.
//!
//! What needs no step of its own: a replica that is **paused** takes no step while time passes; one that is **cut off** has its messages
//! lost, or on their way for as long as it pleases. A **notification** says no more than "look", and looking is always
//! allowed: so lost ones, late ones and those that nobody sent are all there.
//!
//! The one assumption, in the worst form that it allows: a replica counts its lease from before the renewal was sent, and its clock is so
//! slow that it uses the whole margin up; a revoker counts from the moment when the renewal was committed, and its clock is
//! right. A revoker that sees the renewal later waits for longer, and that is all.
//!
//! A store that **goes back** does so in the worst way too: with the entry everything is lost that was seen of the replicas, so
//! nobody is waited for; and a renewal that is under way arrives at the new one.

use stateright::{Model, Property};

use crate::{
    properties,
    state::{Introspection, Renewal, Replica, Round, Row, Step, SystemState, revocation_bit},
};

/// What is explored.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether one thing is explored too")]
pub struct Protocol {
    pub replicas: usize,
    /// How many revocations there are, at most two. The k-th one ends the k-th token.
    pub revocations: u8,
    /// How many ticks of the clock a lease lasts.
    pub lease: u8,
    /// Introspections as steps as well. Without them, those that begin and end at one moment are looked at all the same.
    pub introspections: bool,
    /// Renewals that their replica has given up, and that are carried out after all.
    pub has_stray_renewals: bool,
    /// Somebody wants the same revoked, finds it in the log, and is told that it is so already. One revocation.
    pub has_barriers: bool,
    /// Rows of replicas whose leases have lapsed are removed. By the program, much later; here at once.
    pub has_reaping: bool,
    /// The store loses its first entry, once, and the second one gets its place.
    pub has_log_rollback: bool,
    /// What a renewal does in the database, and its answer, are one step: nobody sees anything of it in between, but where it
    /// is broken. Fewer states.
    pub is_coarse: bool,
    /// Replicas that are in the same situation are not told apart. Fewer states; but in a path they change names.
    pub is_nameless: bool,
    pub mutant: Option<Mutant>,
}

/// The protocol with one part of it missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Nobody looks whether the lease holds before answering from memory.
    NoLease,
    /// The head of the log is what the renewing statement saw of it, before its commit.
    HeadReadDuringRenewal,
    /// A lease that has not lapsed is renewed without reading the head; and a revoker waits for one lease and no longer.
    HeadReadOnlyAfterLapse,
    /// A revoker looks for whom to wait before its entry is in the log.
    RowsReadBeforeEntry,
    /// The replica counts its lease from when the answer came.
    LeaseCountedFromResponse,
    /// The replica's clock is slower than the margin allows: the assumption does not hold.
    SlowClock,
    /// An introspection reads the memory first, and then looks whether the lease holds.
    MemoryReadBeforeLease,
    /// Who finds it revoked already says so at once.
    AcknowledgedImmediately,
    /// A row is removed while its lease may hold.
    ReapedTooEarly,
    /// A row is removed that was renewed since it was found dead.
    ReapedUnconditionally,
    /// What is in the memory is never compared with what is in the log.
    LogNeverCompared,
    /// It is compared before a renewal, and not when the head is read after it.
    ComparedBeforeExclusive,
    /// A lease is taken for a renewal that acknowledged what was lost.
    LeaseForOtherLog,
    /// A store that has gone back is relied on before the leases of before are over.
    TrustedImmediately,
}

/// The round of who finds it revoked already.
const OTHER: u8 = 2;

impl Protocol {
    pub fn is(&self, broken: Mutant) -> bool {
        self.mutant == Some(broken)
    }

    /// Whether a replica answers from its memory.
    pub fn trusts_memory(&self, replica: &Replica) -> bool {
        replica.is_up && (replica.own > 0 || self.is(Mutant::NoLease))
    }

    /// Whether it answers from its memory after it has asked for the log's head: it has applied as much, and where that is
    /// not compared, it does not know that it is something else.
    pub fn is_head_taken_as_own(&self, world: &SystemState, replica: &Replica) -> bool {
        replica.is_up && !self.compares_head() && replica.applied == world.log
    }

    fn compares_head(&self) -> bool {
        !self.is(Mutant::LogNeverCompared) && !self.is(Mutant::ComparedBeforeExclusive)
    }

    /// Which revocation a round is about: its own, or the one that was found.
    fn revocation_of(&self, round: u8) -> u8 {
        if self.has_barriers { 1 } else { round }
    }

    /// Whether nobody is waited for any more by a revocation that was asked for at a replica.
    fn may_acknowledge(&self, world: &SystemState, home: usize, round: u8) -> bool {
        let place = world.position(self.revocation_of(round));
        let waits = |row: Row| row.waited_for & revocation_bit(round) != 0 && row.left > 0 && row.applied < place;
        let here = &world.replicas[home];
        match here.round(round) {
            Round::Waiting { left } if here.applied >= place => {
                left == 0 || !world.replicas.iter().filter_map(|replica| replica.row).any(waits)
            }
            Round::Waiting { .. } | Round::None | Round::RowsRead | Round::Committed => false,
        }
    }

    fn replica_steps(&self, world: &SystemState, n: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[n];
        if replica.stray.is_some() {
            steps.push(Step::CommitStray(n));
        }
        if self.has_reaping {
            match replica.row {
                Some(Row { is_doomed: true, .. }) => steps.push(Step::Remove(n)),
                Some(row) if row.left == 0 || self.is(Mutant::ReapedTooEarly) => steps.push(Step::FindDead(n)),
                Some(_) | None => {}
            }
        }
        if !replica.is_up {
            return steps.push(Step::Join(n));
        }
        steps.push(Step::Crash(n));
        self.revocation_steps(world, n, steps);
        if replica.applied < world.log {
            steps.push(Step::Apply(n));
        }
        match replica.renewal {
            Renewal::None if self.has_log_rollback => steps.push(Step::Compare(n)),
            Renewal::None | Renewal::Compared => steps.push(Step::SendRenewal(n)),
            Renewal::Sent { .. } if self.is_coarse => steps.push(Step::CommitRenewal(n)),
            Renewal::Sent { .. } => steps.push(Step::ExecuteRenewal(n)),
            Renewal::Executed { .. } => steps.push(Step::CommitRenewal(n)),
            Renewal::Committed { .. } => steps.push(Step::ReceiveRenewal(n)),
            Renewal::AwaitingHead { .. } => steps.push(Step::ReadHead(n)),
            Renewal::HasHead { head, .. } if replica.applied >= head => steps.push(Step::AcquireLease(n)),
            Renewal::HasHead { .. } => {}
        }
        if replica.renewal != Renewal::None {
            steps.push(Step::AbandonRenewal(n));
        }
        if self.introspections {
            self.introspection_steps(replica, n, steps);
        }
    }

    fn revocation_steps(&self, world: &SystemState, n: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[n];
        let next = world.log + 1 + u8::from(world.has_rolled_back);
        let is_its_turn = !self.has_log_rollback || world.has_rolled_back || world.log == 0;
        if next <= self.revocations && is_its_turn {
            let looks_first = self.is(Mutant::RowsReadBeforeEntry) && replica.round(next) == Round::None;
            steps.push(if looks_first { Step::ReadRows(n, next) } else { Step::Revoke(n) });
        }
        for k in world.log_entries() {
            // At home it is applied first.
            if replica.round(k) == Round::Committed && replica.applied >= world.position(k) {
                steps.push(Step::ReadRows(n, k));
            }
            if self.may_acknowledge(world, n, k) {
                steps.push(Step::Acknowledge(n, k));
            }
        }
        if self.has_barriers && world.log == 1 {
            self.barrier_steps(world, n, steps);
        }
    }

    /// Somebody wants what is in the log already, once at a time, and as long as nobody has been told that it is so.
    fn barrier_steps(&self, world: &SystemState, n: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[n];
        let nobody_asks = world.replicas.iter().all(|replica| replica.round(OTHER) == Round::None);
        match replica.round(OTHER) {
            Round::None if nobody_asks && world.acknowledged == 0 => steps.push(Step::Find(n)),
            Round::Committed if self.is(Mutant::AcknowledgedImmediately) => steps.push(Step::ReportAlready(n)),
            Round::Committed if replica.applied == 1 => steps.push(Step::FindOther(n)),
            Round::Waiting { .. } if self.may_acknowledge(world, n, OTHER) => steps.push(Step::ReportAlready(n)),
            Round::None | Round::RowsRead | Round::Committed | Round::Waiting { .. } => {}
        }
    }

    fn introspection_steps(&self, replica: &Replica, n: usize, steps: &mut Vec<Step>) {
        let reads_first = self.is(Mutant::MemoryReadBeforeLease);
        match replica.introspection {
            None => steps.push(Step::BeginIntrospection(n)),
            Some(Introspection::Started { .. }) if reads_first => steps.push(Step::ReadMemory(n)),
            Some(Introspection::Started { .. }) if self.trusts_memory(replica) => steps.push(Step::CheckLease(n)),
            Some(Introspection::Started { .. }) => steps.push(Step::QueryStore(n)),
            Some(Introspection::MayUseMemory { .. }) => steps.push(Step::Respond(n)),
            Some(Introspection::HasHead { head, .. }) if replica.applied >= head => steps.push(Step::Respond(n)),
            Some(Introspection::HasRead { .. }) if replica.own > 0 => steps.push(Step::Respond(n)),
            Some(Introspection::HasHead { .. } | Introspection::HasRead { .. }) => {}
        }
    }

    fn tick(world: &mut SystemState) {
        let less = |left: &mut u8| *left = left.saturating_sub(1);
        less(&mut world.grace);
        for replica in &mut world.replicas {
            less(&mut replica.own);
            replica.row.iter_mut().for_each(|row| less(&mut row.left));
            for round in &mut replica.rounds {
                if let Round::Waiting { left } = round {
                    less(left);
                }
            }
            match &mut replica.renewal {
                Renewal::None | Renewal::Compared => {}
                Renewal::Sent { left, .. }
                | Renewal::Executed { left, .. }
                | Renewal::Committed { left, .. }
                | Renewal::AwaitingHead { left }
                | Renewal::HasHead { left, .. } => less(left),
            }
        }
    }

    fn read_rows(&self, world: &mut SystemState, n: usize, k: u8) {
        let place = world.position(self.revocation_of(k));
        for row in world.other_rows(n) {
            if row.left > 0 && row.applied < place {
                row.waited_for |= revocation_bit(k);
            }
        }
        let round = match world.replicas[n].round(k) {
            Round::None => Round::RowsRead,
            Round::RowsRead | Round::Committed | Round::Waiting { .. } => Round::Waiting { left: self.lease },
        };
        world.replicas[n].set_round(k, round);
    }

    /// Nobody waits for these any more.
    fn complete_rounds(world: &mut SystemState, n: usize, which: u8) {
        for k in (1..=2).filter(|k| which & revocation_bit(*k) != 0) {
            if world.replicas[n].round(k) != Round::None {
                world.replicas[n].set_round(k, Round::None);
                world.other_rows(n).for_each(|row| row.waited_for &= !revocation_bit(k));
            }
        }
    }

    fn renew(&self, world: &mut SystemState, n: usize, step: Step) {
        let log = world.log;
        let replica = &mut world.replicas[n];
        replica.renewal = match (step, replica.renewal) {
            (Step::Compare(_), Renewal::None) => {
                if replica.is_stale && !self.is(Mutant::LogNeverCompared) {
                    replica.forget();
                }
                Renewal::Compared
            }
            (Step::SendRenewal(_), Renewal::None | Renewal::Compared) => {
                let left = if self.is(Mutant::SlowClock) { self.lease + 1 } else { self.lease };
                Renewal::Sent { left, applied: replica.applied }
            }
            (Step::ExecuteRenewal(_), Renewal::Sent { left, applied }) => {
                let head = if self.is(Mutant::HeadReadDuringRenewal) { log } else { 0 };
                Renewal::Executed { left, applied, head }
            }
            (Step::CommitRenewal(_), Renewal::Sent { left, applied }) => {
                self.put_row(replica, applied);
                Renewal::AwaitingHead { left }
            }
            (Step::CommitRenewal(_), Renewal::Executed { left, applied, head }) => {
                self.put_row(replica, applied);
                Renewal::Committed { left, head }
            }
            (Step::ReceiveRenewal(_), Renewal::Committed { left, head }) => {
                let left = if self.is(Mutant::LeaseCountedFromResponse) { self.lease } else { left };
                if self.is(Mutant::HeadReadDuringRenewal) {
                    Renewal::HasHead { left, head }
                } else if self.is(Mutant::HeadReadOnlyAfterLapse) && replica.own > 0 {
                    replica.own = replica.own.max(left);
                    Renewal::None
                } else {
                    Renewal::AwaitingHead { left }
                }
            }
            (Step::ReadHead(_), Renewal::AwaitingHead { left }) => {
                let is_compared = self.compares_head() || log < replica.applied && !self.is(Mutant::LogNeverCompared);
                let is_other = replica.is_stale && is_compared;
                if is_other {
                    replica.forget();
                }
                // What was acknowledged is of the log that was lost, and so there is no lease for it.
                if is_other && !self.is(Mutant::LeaseForOtherLog) {
                    Renewal::None
                } else {
                    Renewal::HasHead { left, head: log }
                }
            }
            (Step::AcquireLease(_), Renewal::HasHead { left, .. }) => {
                replica.own = replica.own.max(left);
                Renewal::None
            }
            (Step::AbandonRenewal(_), renewal) => {
                replica.stray = self.stray(renewal).or(replica.stray);
                Renewal::None
            }
            (_, renewal) => renewal,
        };
    }

    fn put_row(&self, replica: &mut Replica, applied: u8) {
        let waited_for = replica.row.map_or(0, |row| row.waited_for);
        // It has another number now, and who is about to remove it looks at that.
        let is_doomed = self.is(Mutant::ReapedUnconditionally) && replica.row.is_some_and(|row| row.is_doomed);
        replica.row = Some(Row { left: self.lease, applied, waited_for, is_doomed });
    }

    /// What is left of a renewal whose replica does not wait for it any more.
    fn stray(&self, renewal: Renewal) -> Option<u8> {
        match renewal {
            Renewal::Sent { applied, .. } | Renewal::Executed { applied, .. } if self.has_stray_renewals => {
                Some(applied)
            }
            _ => None,
        }
    }

    /// What was lost is lost, and who waited for it to be known is told something or other.
    fn roll_back_log(&self, world: &mut SystemState) {
        (world.log, world.has_rolled_back, world.grace) = (0, true, self.lease);
        for n in 0..world.replicas.len() {
            Self::complete_rounds(world, n, u8::MAX);
            let replica = &mut world.replicas[n];
            replica.row = None;
            replica.is_stale = replica.applied > 0;
        }
    }

    fn introspect(world: &mut SystemState, n: usize, step: Step) {
        let (acknowledged, log) = (world.acknowledged, world.log);
        let replica = &mut world.replicas[n];
        let applied = replica.applied;
        replica.introspection = match (step, replica.introspection) {
            (Step::BeginIntrospection(_), None) => Some(Introspection::Started { late: acknowledged }),
            (Step::CheckLease(_), Some(Introspection::Started { late })) => Some(Introspection::MayUseMemory { late }),
            (Step::QueryStore(_), Some(Introspection::Started { late })) => {
                Some(Introspection::HasHead { late, head: log })
            }
            (Step::ReadMemory(_), Some(Introspection::Started { late })) => {
                Some(Introspection::HasRead { late, applied })
            }
            (Step::Respond(_), Some(asked)) => {
                let (late, applied) = match asked {
                    Introspection::HasRead { late, applied } => (late, applied),
                    Introspection::Started { late }
                    | Introspection::MayUseMemory { late }
                    | Introspection::HasHead { late, .. } => (late, applied),
                };
                // Active for the tokens whose revocation is not in the memory.
                // (Where the log goes back, introspections are not steps.)
                world.is_violated |= (applied + 1..=log).any(|k| late & revocation_bit(k) != 0);
                None
            }
            (_, asked) => asked,
        };
    }
}

impl Model for Protocol {
    type State = SystemState;
    type Action = Step;

    /// Nobody is there yet, and the log is empty.
    fn init_states(&self) -> Vec<SystemState> {
        vec![SystemState { replicas: vec![Replica::down(); self.replicas], ..SystemState::default() }]
    }

    fn actions(&self, world: &SystemState, steps: &mut Vec<Step>) {
        steps.push(Step::Tick);
        if self.has_log_rollback && world.log == 1 && !world.has_rolled_back {
            steps.push(Step::RollBackLog);
        }
        for n in 0..self.replicas {
            self.replica_steps(world, n, steps);
        }
    }

    fn next_state(&self, world: &SystemState, step: Step) -> Option<SystemState> {
        let mut next = world.clone();
        match step {
            Step::Tick => Self::tick(&mut next),
            Step::Revoke(n) => {
                next.log += 1;
                let k = next.log + u8::from(next.has_rolled_back);
                let has_looked = next.replicas[n].round(k) == Round::RowsRead;
                next.replicas[n].set_round(k, Round::Committed);
                if has_looked {
                    next.replicas[n].set_round(k, Round::Waiting { left: self.lease });
                }
            }
            Step::ReadRows(n, k) => self.read_rows(&mut next, n, k),
            Step::Acknowledge(n, k) => {
                next.acknowledged |= revocation_bit(k);
                Self::complete_rounds(&mut next, n, revocation_bit(k));
            }
            Step::Find(n) => next.replicas[n].set_round(OTHER, Round::Committed),
            Step::FindOther(n) => self.read_rows(&mut next, n, OTHER),
            Step::ReportAlready(n) => {
                next.acknowledged |= revocation_bit(self.revocation_of(OTHER));
                Self::complete_rounds(&mut next, n, revocation_bit(OTHER));
            }
            Step::FindDead(n) => next.replicas[n].row.iter_mut().for_each(|row| row.is_doomed = true),
            Step::Remove(n) => next.replicas[n].row = None,
            Step::RollBackLog => self.roll_back_log(&mut next),
            Step::Apply(n) => next.replicas[n].applied += 1,
            Step::CommitStray(n) => {
                let replica = &mut next.replicas[n];
                if let Some(applied) = replica.stray.take() {
                    self.put_row(replica, applied);
                }
            }
            Step::Crash(n) => {
                Self::complete_rounds(&mut next, n, u8::MAX);
                let replica = &mut next.replicas[n];
                let (row, stray) = (replica.row, self.stray(replica.renewal).or(replica.stray));
                *replica = Replica { row, stray, ..Replica::down() };
            }
            // A new process has a new name, and so a row of its own. That the row of the old one is waited for until it has
            // lapsed delays, and does nothing else: it is left out.
            Step::Join(n) => next.replicas[n] = Replica { is_up: true, ..Replica::down() },
            Step::Compare(n)
            | Step::SendRenewal(n)
            | Step::ExecuteRenewal(n)
            | Step::CommitRenewal(n)
            | Step::ReceiveRenewal(n)
            | Step::ReadHead(n)
            | Step::AcquireLease(n)
            | Step::AbandonRenewal(n) => self.renew(&mut next, n, step),
            Step::BeginIntrospection(n)
            | Step::CheckLease(n)
            | Step::QueryStore(n)
            | Step::ReadMemory(n)
            | Step::Respond(n) => Self::introspect(&mut next, n, step),
        }
        if self.is_nameless {
            next.replicas.sort_unstable();
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all_properties(self)
    }
}
