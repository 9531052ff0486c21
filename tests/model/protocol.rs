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
    world::{Introspection, Renewal, Replica, Round, Row, Step, World, bit},
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
    pub strays: bool,
    /// Somebody wants the same revoked, finds it in the log, and is told that it is so already. One revocation.
    pub settles: bool,
    /// Rows of replicas whose leases have lapsed are removed. By the program, much later; here at once.
    pub removes: bool,
    /// The store loses its first entry, once, and the second one gets its place.
    pub goes_back: bool,
    /// What a renewal does in the database, and its answer, are one step: nobody sees anything of it in between, but where it
    /// is broken. Fewer states.
    pub coarse: bool,
    /// Replicas that are in the same situation are not told apart. Fewer states; but in a path they change names.
    pub nameless: bool,
    pub broken: Option<Broken>,
}

/// The protocol with one part of it missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody looks whether the lease holds before answering from memory.
    NoLease,
    /// The head of the log is what the renewing statement saw of it, before its commit.
    HeadReadInTheRenewal,
    /// A lease that has not lapsed is renewed without reading the head; and a revoker waits for one lease and no longer.
    HeadReadOnlyAfterALapse,
    /// A revoker looks for whom to wait before its entry is in the log.
    RowsReadBeforeTheEntry,
    /// The replica counts its lease from when the answer came.
    CountedFromTheAnswer,
    /// The replica's clock is slower than the margin allows: the assumption does not hold.
    ClockTooSlow,
    /// An introspection reads the memory first, and then looks whether the lease holds.
    MemoryReadBeforeTheLease,
    /// Who finds it revoked already says so at once.
    SaidAtOnce,
    /// A row is removed while its lease may hold.
    RemovedTooEarly,
    /// A row is removed that was renewed since it was found dead.
    RemovedWhateverCame,
    /// What is in the memory is never compared with what is in the log.
    NeverCompared,
    /// It is compared before a renewal, and not when the head is read after it.
    ComparedBeforeAlone,
    /// A lease is taken for a renewal that acknowledged what was lost.
    LeaseForAnotherLog,
    /// A store that has gone back is relied on before the leases of before are over.
    ReliedOnAtOnce,
}

/// The round of who finds it revoked already.
const OTHER: u8 = 2;

impl Protocol {
    pub fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    /// Whether a replica answers from its memory.
    pub fn trusts_memory(&self, replica: &Replica) -> bool {
        replica.is_up && (replica.own > 0 || self.is(Broken::NoLease))
    }

    /// Whether it answers from its memory after it has asked for the log's head: it has applied as much, and where that is
    /// not compared, it does not know that it is something else.
    pub fn takes_head_for_its_own(&self, world: &World, replica: &Replica) -> bool {
        replica.is_up && !self.compares_head() && replica.applied == world.log
    }

    fn compares_head(&self) -> bool {
        !self.is(Broken::NeverCompared) && !self.is(Broken::ComparedBeforeAlone)
    }

    /// Which revocation a round is about: its own, or the one that was found.
    fn revocation_of(&self, round: u8) -> u8 {
        if self.settles { 1 } else { round }
    }

    /// Whether nobody is waited for any more by a revocation that was asked for at a replica.
    fn may_acknowledge(&self, world: &World, home: usize, round: u8) -> bool {
        let place = world.place(self.revocation_of(round));
        let waits = |row: Row| row.waited_for & bit(round) != 0 && row.left > 0 && row.applied < place;
        let here = &world.replicas[home];
        match here.round(round) {
            Round::Waiting { left } if here.applied >= place => {
                left == 0 || !world.replicas.iter().filter_map(|replica| replica.row).any(waits)
            }
            Round::Waiting { .. } | Round::None | Round::Looked | Round::Committed => false,
        }
    }

    fn steps_of(&self, world: &World, n: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[n];
        if replica.stray.is_some() {
            steps.push(Step::CommitStray(n));
        }
        if self.removes {
            match replica.row {
                Some(Row { is_doomed: true, .. }) => steps.push(Step::Remove(n)),
                Some(row) if row.left == 0 || self.is(Broken::RemovedTooEarly) => steps.push(Step::FindDead(n)),
                Some(_) | None => {}
            }
        }
        if !replica.is_up {
            return steps.push(Step::Join(n));
        }
        steps.push(Step::Crash(n));
        self.steps_of_revoking(world, n, steps);
        if replica.applied < world.log {
            steps.push(Step::Apply(n));
        }
        match replica.renewal {
            Renewal::None if self.goes_back => steps.push(Step::Compare(n)),
            Renewal::None | Renewal::Compared => steps.push(Step::SendRenewal(n)),
            Renewal::Sent { .. } if self.coarse => steps.push(Step::CommitRenewal(n)),
            Renewal::Sent { .. } => steps.push(Step::CarryRenewalOut(n)),
            Renewal::CarriedOut { .. } => steps.push(Step::CommitRenewal(n)),
            Renewal::Committed { .. } => steps.push(Step::ReceiveRenewal(n)),
            Renewal::AsksForHead { .. } => steps.push(Step::ReadHead(n)),
            Renewal::HasHead { head, .. } if replica.applied >= head => steps.push(Step::TakeLease(n)),
            Renewal::HasHead { .. } => {}
        }
        if replica.renewal != Renewal::None {
            steps.push(Step::GiveUp(n));
        }
        if self.introspections {
            self.steps_of_introspection(replica, n, steps);
        }
    }

    fn steps_of_revoking(&self, world: &World, n: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[n];
        let next = world.log + 1 + u8::from(world.went_back);
        let is_its_turn = !self.goes_back || world.went_back || world.log == 0;
        if next <= self.revocations && is_its_turn {
            let looks_first = self.is(Broken::RowsReadBeforeTheEntry) && replica.round(next) == Round::None;
            steps.push(if looks_first { Step::LookAtRows(n, next) } else { Step::Revoke(n) });
        }
        for k in world.in_log() {
            // At home it is applied first.
            if replica.round(k) == Round::Committed && replica.applied >= world.place(k) {
                steps.push(Step::LookAtRows(n, k));
            }
            if self.may_acknowledge(world, n, k) {
                steps.push(Step::Acknowledge(n, k));
            }
        }
        if self.settles && world.log == 1 {
            self.steps_of_settling(world, n, steps);
        }
    }

    /// Somebody wants what is in the log already, once at a time, and as long as nobody has been told that it is so.
    fn steps_of_settling(&self, world: &World, n: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[n];
        let nobody_asks = world.replicas.iter().all(|replica| replica.round(OTHER) == Round::None);
        match replica.round(OTHER) {
            Round::None if nobody_asks && world.acknowledged == 0 => steps.push(Step::Find(n)),
            Round::Committed if self.is(Broken::SaidAtOnce) => steps.push(Step::SayAlready(n)),
            Round::Committed if replica.applied == 1 => steps.push(Step::LookForOther(n)),
            Round::Waiting { .. } if self.may_acknowledge(world, n, OTHER) => steps.push(Step::SayAlready(n)),
            Round::None | Round::Looked | Round::Committed | Round::Waiting { .. } => {}
        }
    }

    fn steps_of_introspection(&self, replica: &Replica, n: usize, steps: &mut Vec<Step>) {
        let reads_first = self.is(Broken::MemoryReadBeforeTheLease);
        match replica.introspection {
            None => steps.push(Step::BeginIntrospection(n)),
            Some(Introspection::Begun { .. }) if reads_first => steps.push(Step::ReadMemory(n)),
            Some(Introspection::Begun { .. }) if self.trusts_memory(replica) => steps.push(Step::LookAtLease(n)),
            Some(Introspection::Begun { .. }) => steps.push(Step::AskStore(n)),
            Some(Introspection::MayUseMemory { .. }) => steps.push(Step::Answer(n)),
            Some(Introspection::HasHead { head, .. }) if replica.applied >= head => steps.push(Step::Answer(n)),
            Some(Introspection::HasRead { .. }) if replica.own > 0 => steps.push(Step::Answer(n)),
            Some(Introspection::HasHead { .. } | Introspection::HasRead { .. }) => {}
        }
    }

    fn tick(world: &mut World) {
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
                | Renewal::CarriedOut { left, .. }
                | Renewal::Committed { left, .. }
                | Renewal::AsksForHead { left }
                | Renewal::HasHead { left, .. } => less(left),
            }
        }
    }

    fn look_at_rows(&self, world: &mut World, n: usize, k: u8) {
        let place = world.place(self.revocation_of(k));
        for row in world.rows_but(n) {
            if row.left > 0 && row.applied < place {
                row.waited_for |= bit(k);
            }
        }
        let round = match world.replicas[n].round(k) {
            Round::None => Round::Looked,
            Round::Looked | Round::Committed | Round::Waiting { .. } => Round::Waiting { left: self.lease },
        };
        world.replicas[n].set_round(k, round);
    }

    /// Nobody waits for these any more.
    fn end_rounds(world: &mut World, n: usize, which: u8) {
        for k in (1..=2).filter(|k| which & bit(*k) != 0) {
            if world.replicas[n].round(k) != Round::None {
                world.replicas[n].set_round(k, Round::None);
                world.rows_but(n).for_each(|row| row.waited_for &= !bit(k));
            }
        }
    }

    fn renew(&self, world: &mut World, n: usize, step: Step) {
        let log = world.log;
        let replica = &mut world.replicas[n];
        replica.renewal = match (step, replica.renewal) {
            (Step::Compare(_), Renewal::None) => {
                if replica.is_stale && !self.is(Broken::NeverCompared) {
                    replica.forget();
                }
                Renewal::Compared
            }
            (Step::SendRenewal(_), Renewal::None | Renewal::Compared) => {
                let left = if self.is(Broken::ClockTooSlow) { self.lease + 1 } else { self.lease };
                Renewal::Sent { left, applied: replica.applied }
            }
            (Step::CarryRenewalOut(_), Renewal::Sent { left, applied }) => {
                let head = if self.is(Broken::HeadReadInTheRenewal) { log } else { 0 };
                Renewal::CarriedOut { left, applied, head }
            }
            (Step::CommitRenewal(_), Renewal::Sent { left, applied }) => {
                self.put_row(replica, applied);
                Renewal::AsksForHead { left }
            }
            (Step::CommitRenewal(_), Renewal::CarriedOut { left, applied, head }) => {
                self.put_row(replica, applied);
                Renewal::Committed { left, head }
            }
            (Step::ReceiveRenewal(_), Renewal::Committed { left, head }) => {
                let left = if self.is(Broken::CountedFromTheAnswer) { self.lease } else { left };
                if self.is(Broken::HeadReadInTheRenewal) {
                    Renewal::HasHead { left, head }
                } else if self.is(Broken::HeadReadOnlyAfterALapse) && replica.own > 0 {
                    replica.own = replica.own.max(left);
                    Renewal::None
                } else {
                    Renewal::AsksForHead { left }
                }
            }
            (Step::ReadHead(_), Renewal::AsksForHead { left }) => {
                let is_compared = self.compares_head() || log < replica.applied && !self.is(Broken::NeverCompared);
                let is_other = replica.is_stale && is_compared;
                if is_other {
                    replica.forget();
                }
                // What was acknowledged is of the log that was lost, and so there is no lease for it.
                if is_other && !self.is(Broken::LeaseForAnotherLog) {
                    Renewal::None
                } else {
                    Renewal::HasHead { left, head: log }
                }
            }
            (Step::TakeLease(_), Renewal::HasHead { left, .. }) => {
                replica.own = replica.own.max(left);
                Renewal::None
            }
            (Step::GiveUp(_), renewal) => {
                replica.stray = self.stray(renewal).or(replica.stray);
                Renewal::None
            }
            (_, renewal) => renewal,
        };
    }

    fn put_row(&self, replica: &mut Replica, applied: u8) {
        let waited_for = replica.row.map_or(0, |row| row.waited_for);
        // It has another number now, and who is about to remove it looks at that.
        let is_doomed = self.is(Broken::RemovedWhateverCame) && replica.row.is_some_and(|row| row.is_doomed);
        replica.row = Some(Row { left: self.lease, applied, waited_for, is_doomed });
    }

    /// What is left of a renewal whose replica does not wait for it any more.
    fn stray(&self, renewal: Renewal) -> Option<u8> {
        match renewal {
            Renewal::Sent { applied, .. } | Renewal::CarriedOut { applied, .. } if self.strays => Some(applied),
            _ => None,
        }
    }

    /// What was lost is lost, and who waited for it to be known is told something or other.
    fn go_back(&self, world: &mut World) {
        (world.log, world.went_back, world.grace) = (0, true, self.lease);
        for n in 0..world.replicas.len() {
            Self::end_rounds(world, n, u8::MAX);
            let replica = &mut world.replicas[n];
            replica.row = None;
            replica.is_stale = replica.applied > 0;
        }
    }

    fn introspect(world: &mut World, n: usize, step: Step) {
        let (acknowledged, log) = (world.acknowledged, world.log);
        let replica = &mut world.replicas[n];
        let applied = replica.applied;
        replica.introspection = match (step, replica.introspection) {
            (Step::BeginIntrospection(_), None) => Some(Introspection::Begun { late: acknowledged }),
            (Step::LookAtLease(_), Some(Introspection::Begun { late })) => Some(Introspection::MayUseMemory { late }),
            (Step::AskStore(_), Some(Introspection::Begun { late })) => {
                Some(Introspection::HasHead { late, head: log })
            }
            (Step::ReadMemory(_), Some(Introspection::Begun { late })) => {
                Some(Introspection::HasRead { late, applied })
            }
            (Step::Answer(_), Some(asked)) => {
                let (late, applied) = match asked {
                    Introspection::HasRead { late, applied } => (late, applied),
                    Introspection::Begun { late }
                    | Introspection::MayUseMemory { late }
                    | Introspection::HasHead { late, .. } => (late, applied),
                };
                // Active for the tokens whose revocation is not in the memory.
                // (Where the log goes back, introspections are not steps.)
                world.lied |= (applied + 1..=log).any(|k| late & bit(k) != 0);
                None
            }
            (_, asked) => asked,
        };
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    /// Nobody is there yet, and the log is empty.
    fn init_states(&self) -> Vec<World> {
        vec![World { replicas: vec![Replica::down(); self.replicas], ..World::default() }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.push(Step::Tick);
        if self.goes_back && world.log == 1 && !world.went_back {
            steps.push(Step::GoBack);
        }
        for n in 0..self.replicas {
            self.steps_of(world, n, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Tick => Self::tick(&mut next),
            Step::Revoke(n) => {
                next.log += 1;
                let k = next.log + u8::from(next.went_back);
                let has_looked = next.replicas[n].round(k) == Round::Looked;
                next.replicas[n].set_round(k, Round::Committed);
                if has_looked {
                    next.replicas[n].set_round(k, Round::Waiting { left: self.lease });
                }
            }
            Step::LookAtRows(n, k) => self.look_at_rows(&mut next, n, k),
            Step::Acknowledge(n, k) => {
                next.acknowledged |= bit(k);
                Self::end_rounds(&mut next, n, bit(k));
            }
            Step::Find(n) => next.replicas[n].set_round(OTHER, Round::Committed),
            Step::LookForOther(n) => self.look_at_rows(&mut next, n, OTHER),
            Step::SayAlready(n) => {
                next.acknowledged |= bit(self.revocation_of(OTHER));
                Self::end_rounds(&mut next, n, bit(OTHER));
            }
            Step::FindDead(n) => next.replicas[n].row.iter_mut().for_each(|row| row.is_doomed = true),
            Step::Remove(n) => next.replicas[n].row = None,
            Step::GoBack => self.go_back(&mut next),
            Step::Apply(n) => next.replicas[n].applied += 1,
            Step::CommitStray(n) => {
                let replica = &mut next.replicas[n];
                if let Some(applied) = replica.stray.take() {
                    self.put_row(replica, applied);
                }
            }
            Step::Crash(n) => {
                Self::end_rounds(&mut next, n, u8::MAX);
                let replica = &mut next.replicas[n];
                let (row, stray) = (replica.row, self.stray(replica.renewal).or(replica.stray));
                *replica = Replica { row, stray, ..Replica::down() };
            }
            // A new process has a new name, and so a row of its own. That the row of the old one is waited for until it has
            // lapsed delays, and does nothing else: it is left out.
            Step::Join(n) => next.replicas[n] = Replica { is_up: true, ..Replica::down() },
            Step::Compare(n)
            | Step::SendRenewal(n)
            | Step::CarryRenewalOut(n)
            | Step::CommitRenewal(n)
            | Step::ReceiveRenewal(n)
            | Step::ReadHead(n)
            | Step::TakeLease(n)
            | Step::GiveUp(n) => self.renew(&mut next, n, step),
            Step::BeginIntrospection(n)
            | Step::LookAtLease(n)
            | Step::AskStore(n)
            | Step::ReadMemory(n)
            | Step::Answer(n) => Self::introspect(&mut next, n, step),
        }
        if self.nameless {
            next.replicas.sort_unstable();
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
