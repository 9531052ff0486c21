//! The protocol as steps in any order.
//!
//! Sending, executing and receiving a message are separate steps. Any other step may happen between
//! two of them.
//!
//! Some faults need no step of their own:
//!
//! - A **paused** replica takes no step while time passes.
//! - The messages of a **partitioned** replica are lost or delayed for any time.
//! - A **notification** only prompts a read, and a read is always enabled. The model therefore
//!   covers lost, late and spurious notifications.
//!
//! The model makes the protocol's one assumption in its worst form. A replica counts its lease from
//! before the renewal was sent, and its clock is so slow that it uses the whole margin. A revoker
//! counts from the commit of the renewal, and its clock is exact. A revoker that sees the renewal
//! later only waits longer.
//!
//! A **log rollback** also takes its worst form. The rows of the replicas are lost together with
//! the entry, so a revocation waits for no replica. A renewal in flight arrives at the new primary.

use stateright::{Model, Property};

use crate::{
    properties,
    state::{Introspection, Renewal, Replica, Round, Row, Step, SystemState, revocation_bit},
};

/// The variant of the protocol that is explored.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each flag adds or reduces one dimension of the exploration")]
pub struct Protocol {
    pub replicas: usize,
    /// The number of revocations, at most two. The k-th revocation ends the k-th token.
    pub revocations: u8,
    /// The length of a lease in clock ticks.
    pub lease: u8,
    /// Models introspections as steps. Without this, the invariant still covers introspections that
    /// start and end in one state.
    pub introspections: bool,
    /// Commits renewals that their replica has abandoned.
    pub has_stray_renewals: bool,
    /// A second client requests the same revocation, finds it in the log and gets the response
    /// "already revoked". Requires one revocation.
    pub has_barriers: bool,
    /// Removes the rows of replicas whose leases have lapsed. The server removes them much later;
    /// the model removes them at once.
    pub has_reaping: bool,
    /// The store loses its first entry, once. The second entry takes the lost one's position.
    pub has_log_rollback: bool,
    /// Models the execution, the commit and the response of a renewal as one step. This reduces the
    /// number of states. Only mutants can observe the states in between.
    pub is_coarse: bool,
    /// Symmetry reduction: treats replicas as interchangeable. This reduces the number of states,
    /// but a replica's number may change along a path.
    pub is_symmetric: bool,
    pub mutant: Option<Mutant>,
}

/// The missing or faulty part of a protocol variant that must violate the invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A replica answers from memory without checking its lease.
    NoLease,
    /// The renewing statement reads the head of the log, before its own commit.
    HeadReadDuringRenewal,
    /// A lease that has not lapsed is renewed without a read of the head. A revoker still waits for
    /// at most one lease.
    HeadReadOnlyAfterLapse,
    /// A revoker reads the rows before its entry is in the log.
    RowsReadBeforeEntry,
    /// The replica counts its lease from the response to the renewal.
    LeaseCountedFromResponse,
    /// The replica's clock is slower than the margin allows, which violates the assumption.
    SlowClock,
    /// An introspection reads the memory before it checks the lease.
    MemoryReadBeforeLease,
    /// The response "already revoked" does not wait for the other replicas.
    AcknowledgedImmediately,
    /// A row is removed while its lease may be valid.
    ReapedTooEarly,
    /// A row is removed although it was renewed after its replica was found dead.
    ReapedUnconditionally,
    /// A replica never compares its memory with the log.
    LogNeverCompared,
    /// A replica compares before a renewal, but not at the read of the head after the renewal.
    ComparedBeforeExclusive,
    /// A renewal that acknowledged a lost entry extends the lease.
    LeaseForOtherLog,
    /// The guarantee is expected before the leases from before a rollback have expired.
    TrustedImmediately,
}

/// The round of a request that finds its revocation in the log.
const OTHER: u8 = 2;

impl Protocol {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Returns whether a replica answers from its memory.
    pub fn trusts_memory(&self, replica: &Replica) -> bool {
        replica.is_up && (replica.own > 0 || self.is(Mutant::NoLease))
    }

    /// Returns whether a replica answers from its memory after it has read the head of the log.
    ///
    /// It has applied entries up to the head. A mutant that does not compare them cannot detect the
    /// divergence.
    pub fn is_head_taken_as_own(&self, state: &SystemState, replica: &Replica) -> bool {
        replica.is_up && !self.compares_head() && replica.applied == state.log
    }

    fn compares_head(&self) -> bool {
        !self.is(Mutant::LogNeverCompared) && !self.is(Mutant::ComparedBeforeExclusive)
    }

    /// Returns the revocation of a round: its own, or with barriers the one found in the log.
    fn revocation_of(&self, round: u8) -> u8 {
        if self.has_barriers { 1 } else { round }
    }

    /// Returns whether a revocation that was requested at `origin` waits for no replica any more.
    fn may_acknowledge(&self, state: &SystemState, origin: usize, round: u8) -> bool {
        let position = state.position(self.revocation_of(round));
        let waits = |row: Row| row.waited_for & revocation_bit(round) != 0 && row.left > 0 && row.applied < position;
        let here = &state.replicas[origin];
        match here.round(round) {
            Round::Waiting { left } if here.applied >= position => {
                left == 0 || !state.replicas.iter().filter_map(|replica| replica.row).any(waits)
            }
            Round::Waiting { .. } | Round::None | Round::RowsRead | Round::Committed => false,
        }
    }

    fn replica_steps(&self, state: &SystemState, n: usize, steps: &mut Vec<Step>) {
        let replica = &state.replicas[n];
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
        self.revocation_steps(state, n, steps);
        if replica.applied < state.log {
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

    fn revocation_steps(&self, state: &SystemState, n: usize, steps: &mut Vec<Step>) {
        let replica = &state.replicas[n];
        let next = state.log + 1 + u8::from(state.has_rolled_back);
        let may_append = !self.has_log_rollback || state.has_rolled_back || state.log == 0;
        if next <= self.revocations && may_append {
            let reads_rows_first = self.is(Mutant::RowsReadBeforeEntry) && replica.round(next) == Round::None;
            steps.push(if reads_rows_first { Step::ReadRows(n, next) } else { Step::Revoke(n) });
        }
        for k in state.log_entries() {
            // The replica that handles the request applies the entry first.
            if replica.round(k) == Round::Committed && replica.applied >= state.position(k) {
                steps.push(Step::ReadRows(n, k));
            }
            if self.may_acknowledge(state, n, k) {
                steps.push(Step::Acknowledge(n, k));
            }
        }
        if self.has_barriers && state.log == 1 {
            self.barrier_steps(state, n, steps);
        }
    }

    /// Adds the steps of a request for a revocation that is in the log already. One such request is
    /// pending at a time, and new ones stop once the revocation has been acknowledged.
    fn barrier_steps(&self, state: &SystemState, n: usize, steps: &mut Vec<Step>) {
        let replica = &state.replicas[n];
        let none_pending = state.replicas.iter().all(|replica| replica.round(OTHER) == Round::None);
        match replica.round(OTHER) {
            Round::None if none_pending && state.acknowledged == 0 => steps.push(Step::Find(n)),
            Round::Committed if self.is(Mutant::AcknowledgedImmediately) => steps.push(Step::ReportAlready(n)),
            Round::Committed if replica.applied == 1 => steps.push(Step::FindOther(n)),
            Round::Waiting { .. } if self.may_acknowledge(state, n, OTHER) => steps.push(Step::ReportAlready(n)),
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

    fn tick(state: &mut SystemState) {
        let decrement = |left: &mut u8| *left = left.saturating_sub(1);
        decrement(&mut state.grace);
        for replica in &mut state.replicas {
            decrement(&mut replica.own);
            replica.row.iter_mut().for_each(|row| decrement(&mut row.left));
            for round in &mut replica.rounds {
                if let Round::Waiting { left } = round {
                    decrement(left);
                }
            }
            match &mut replica.renewal {
                Renewal::None | Renewal::Compared => {}
                Renewal::Sent { left, .. }
                | Renewal::Executed { left, .. }
                | Renewal::Committed { left, .. }
                | Renewal::AwaitingHead { left }
                | Renewal::HasHead { left, .. } => decrement(left),
            }
        }
    }

    fn read_rows(&self, state: &mut SystemState, n: usize, k: u8) {
        let position = state.position(self.revocation_of(k));
        for row in state.other_rows(n) {
            if row.left > 0 && row.applied < position {
                row.waited_for |= revocation_bit(k);
            }
        }
        let round = match state.replicas[n].round(k) {
            Round::None => Round::RowsRead,
            Round::RowsRead | Round::Committed | Round::Waiting { .. } => Round::Waiting { left: self.lease },
        };
        state.replicas[n].set_round(k, round);
    }

    /// Ends the rounds of a set of revocations at replica `n`, with all their waits.
    fn complete_rounds(state: &mut SystemState, n: usize, which: u8) {
        for k in (1..=2).filter(|k| which & revocation_bit(*k) != 0) {
            if state.replicas[n].round(k) != Round::None {
                state.replicas[n].set_round(k, Round::None);
                state.other_rows(n).for_each(|row| row.waited_for &= !revocation_bit(k));
            }
        }
    }

    fn renew(&self, state: &mut SystemState, n: usize, step: Step) {
        let log = state.log;
        let replica = &mut state.replicas[n];
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
                let has_diverged = replica.is_stale && is_compared;
                if has_diverged {
                    replica.forget();
                }
                // The renewal acknowledged a lost entry, so it does not extend the lease.
                if has_diverged && !self.is(Mutant::LeaseForOtherLog) {
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
        // The renewal changes the row's sequence number. Removal is conditional on that number, so
        // a pending removal has no effect.
        let is_doomed = self.is(Mutant::ReapedUnconditionally) && replica.row.is_some_and(|row| row.is_doomed);
        replica.row = Some(Row { left: self.lease, applied, waited_for, is_doomed });
    }

    /// Returns the applied position of an abandoned renewal that may still be committed.
    fn stray(&self, renewal: Renewal) -> Option<u8> {
        match renewal {
            Renewal::Sent { applied, .. } | Renewal::Executed { applied, .. } if self.has_stray_renewals => {
                Some(applied)
            }
            _ => None,
        }
    }

    /// Rolls the log back. Requests that wait for the lost entry end with an arbitrary response.
    fn roll_back_log(&self, state: &mut SystemState) {
        (state.log, state.has_rolled_back, state.grace) = (0, true, self.lease);
        for n in 0..state.replicas.len() {
            Self::complete_rounds(state, n, u8::MAX);
            let replica = &mut state.replicas[n];
            replica.row = None;
            replica.is_stale = replica.applied > 0;
        }
    }

    fn introspect(state: &mut SystemState, n: usize, step: Step) {
        let (acknowledged, log) = (state.acknowledged, state.log);
        let replica = &mut state.replicas[n];
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
            (Step::Respond(_), Some(pending)) => {
                let (late, applied) = match pending {
                    Introspection::HasRead { late, applied } => (late, applied),
                    Introspection::Started { late }
                    | Introspection::MayUseMemory { late }
                    | Introspection::HasHead { late, .. } => (late, applied),
                };
                // The response is "active" for tokens whose revocation the memory does not contain.
                // Variants with log rollback do not model introspections as steps.
                state.is_violated |= (applied + 1..=log).any(|k| late & revocation_bit(k) != 0);
                None
            }
            (_, pending) => pending,
        };
    }
}

impl Model for Protocol {
    type State = SystemState;
    type Action = Step;

    /// All replicas are down, and the log is empty.
    fn init_states(&self) -> Vec<SystemState> {
        vec![SystemState { replicas: vec![Replica::down(); self.replicas], ..SystemState::default() }]
    }

    fn actions(&self, state: &SystemState, steps: &mut Vec<Step>) {
        steps.push(Step::Tick);
        if self.has_log_rollback && state.log == 1 && !state.has_rolled_back {
            steps.push(Step::RollBackLog);
        }
        for n in 0..self.replicas {
            self.replica_steps(state, n, steps);
        }
    }

    fn next_state(&self, state: &SystemState, step: Step) -> Option<SystemState> {
        let mut next = state.clone();
        match step {
            Step::Tick => Self::tick(&mut next),
            Step::Revoke(n) => {
                next.log += 1;
                let k = next.log + u8::from(next.has_rolled_back);
                let has_read_rows = next.replicas[n].round(k) == Round::RowsRead;
                next.replicas[n].set_round(k, Round::Committed);
                if has_read_rows {
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
            // A new process has a new replica id and therefore a new row. A wait for the old row
            // would only delay the revocation, so the model drops that row.
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
        if self.is_symmetric {
            next.replicas.sort_unstable();
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all_properties(self)
    }
}
