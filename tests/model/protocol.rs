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

use stateright::{Model, Property};

use crate::world::{Introspection, Renewal, Replica, Round, Row, Step, World, bit};

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
}

/// Promise 5.
pub const PROMISE: &str = "who asks after a revocation was acknowledged is never told `active`";

impl Protocol {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    /// Whether a replica answers from its memory.
    fn trusts_memory(&self, replica: &Replica) -> bool {
        replica.is_up && (replica.own > 0 || self.is(Broken::NoLease))
    }

    /// Whether nobody is waited for any more by a revocation that was asked for at a replica.
    fn may_acknowledge(world: &World, home: usize, revocation: u8) -> bool {
        let waits = |row: Row| row.waited_for & bit(revocation) != 0 && row.left > 0 && row.applied < revocation;
        let here = &world.replicas[home];
        match here.round(revocation) {
            Round::Waiting { left } if here.applied >= revocation => {
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
        if !replica.is_up {
            return steps.push(Step::Join(n));
        }
        steps.push(Step::Crash(n));
        self.steps_of_revoking(world, n, steps);
        if replica.applied < world.log {
            steps.push(Step::Apply(n));
        }
        match replica.renewal {
            Renewal::None => steps.push(Step::SendRenewal(n)),
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
        let next = world.log + 1;
        if next <= self.revocations {
            let looks_first = self.is(Broken::RowsReadBeforeTheEntry) && replica.round(next) == Round::None;
            steps.push(if looks_first { Step::LookAtRows(n, next) } else { Step::Revoke(n) });
        }
        for k in 1..=world.log {
            // At home it is applied first.
            if replica.round(k) == Round::Committed && replica.applied >= k {
                steps.push(Step::LookAtRows(n, k));
            }
            if Self::may_acknowledge(world, n, k) {
                steps.push(Step::Acknowledge(n, k));
            }
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
        for replica in &mut world.replicas {
            less(&mut replica.own);
            replica.row.iter_mut().for_each(|row| less(&mut row.left));
            for round in &mut replica.rounds {
                if let Round::Waiting { left } = round {
                    less(left);
                }
            }
            match &mut replica.renewal {
                Renewal::None => {}
                Renewal::Sent { left, .. }
                | Renewal::CarriedOut { left, .. }
                | Renewal::Committed { left, .. }
                | Renewal::AsksForHead { left }
                | Renewal::HasHead { left, .. } => less(left),
            }
        }
    }

    fn look_at_rows(&self, world: &mut World, n: usize, k: u8) {
        for row in world.rows_but(n) {
            if row.left > 0 && row.applied < k {
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
            (Step::SendRenewal(_), Renewal::None) => {
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
            (Step::ReadHead(_), Renewal::AsksForHead { left }) => Renewal::HasHead { left, head: log },
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
        replica.row = Some(Row { left: self.lease, applied, waited_for });
    }

    /// What is left of a renewal whose replica does not wait for it any more.
    fn stray(&self, renewal: Renewal) -> Option<u8> {
        match renewal {
            Renewal::Sent { applied, .. } | Renewal::CarriedOut { applied, .. } if self.strays => Some(applied),
            _ => None,
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
                let has_looked = next.replicas[n].round(next.log) == Round::Looked;
                next.replicas[n].set_round(next.log, Round::Committed);
                if has_looked {
                    next.replicas[n].set_round(next.log, Round::Waiting { left: self.lease });
                }
            }
            Step::LookAtRows(n, k) => self.look_at_rows(&mut next, n, k),
            Step::Acknowledge(n, k) => {
                next.acknowledged |= bit(k);
                Self::end_rounds(&mut next, n, bit(k));
            }
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
            Step::SendRenewal(n)
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
        let mut properties = vec![
            Property::always(PROMISE, |protocol: &Self, world: &World| {
                let from_memory = world.replicas.iter().filter(|replica| protocol.trusts_memory(replica));
                // An introspection that begins and ends at this moment.
                let lies = |replica: &Replica| (replica.applied + 1..=world.log).any(|k| world.is_acknowledged(k));
                !world.lied && !from_memory.into_iter().any(lies)
            }),
            // The rest shows that there is something to look at: what never happens is never wrong.
            Property::sometimes("every revocation is acknowledged", |protocol: &Self, world: &World| {
                world.acknowledged == bit(protocol.revocations + 1) - 1
            }),
            Property::sometimes("every replica answers from memory", |protocol: &Self, world: &World| {
                world.replicas.iter().all(|replica| protocol.trusts_memory(replica))
            }),
            Property::sometimes(
                "a revocation is acknowledged without a replica that does not know it",
                |_, world: &World| {
                    world.replicas.iter().any(|replica| {
                        replica.is_up && replica.row.is_some() && replica.applied == 0 && world.is_acknowledged(1)
                    })
                },
            ),
            Property::sometimes("a revocation waits for a lease that holds", |_, world: &World| {
                let is_waited_for = |row: Row| row.waited_for != 0 && row.left > 0 && row.applied < world.log;
                world.replicas.iter().any(|replica| replica.own > 0 && replica.row.is_some_and(is_waited_for))
            }),
            Property::sometimes(
                "a revocation waits for nobody, although somebody renews on and on",
                |_, world: &World| {
                    let is_over = |replica: &Replica| replica.round(1) == Round::Waiting { left: 0 };
                    let renews = |row: Row| row.waited_for != 0 && row.left > 0 && row.applied == 0;
                    world.replicas.iter().any(is_over)
                        && world.replicas.iter().any(|replica| replica.row.is_some_and(renews))
                },
            ),
            Property::sometimes(
                "all answer from memory after everything was acknowledged",
                |protocol: &Self, world: &World| {
                    let all = |replica: &Replica| protocol.trusts_memory(replica) && replica.applied == world.log;
                    world.acknowledged == bit(protocol.revocations + 1) - 1 && world.replicas.iter().all(all)
                },
            ),
        ];
        if self.introspections {
            properties.push(Property::sometimes("an introspection asks the store", |_, world: &World| {
                let asks = |replica: &Replica| matches!(replica.introspection, Some(Introspection::HasHead { .. }));
                world.replicas.iter().any(asks)
            }));
        }
        properties
    }
}
