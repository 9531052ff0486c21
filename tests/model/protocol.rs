//! The protocol as steps that happen in any order: what is sent, carried out and received are steps of their own, and between any two of
//! them anything else may happen.
//!
//! What needs no step of its own: a replica that is **paused** takes no step while time passes; one that is **cut off** has its messages
//! lost, or on their way for as long as it pleases. A **notification** says no more than "look", and looking is always
//! allowed: so lost ones, late ones and those that nobody sent are all there.
//!
//! The one assumption, in the worst form that it allows: a replica counts its lease from before the renewal was sent, and its clock is so
//! slow that it uses the whole margin up. So in its own eyes the lease lasts as long, in true time, as the database counts it
//! from when it carried the renewal out, and never longer.

use stateright::{Model, Property};

use crate::world::{Introspection, Renewal, Replica, Row, Step, World, bit};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub replicas: usize,
    /// How many revocations there are. The k-th one ends the k-th token.
    pub revocations: u8,
    /// How many ticks of the clock a lease lasts.
    pub lease: u8,
    /// Introspections as steps as well. Without them, those that begin and end at one moment are looked at all the same.
    pub introspections: bool,
    /// Renewals that their replica has given up, and that are carried out after all.
    pub strays: bool,
    /// Replicas that are in the same situation are not told apart. Fewer states; but in a path they change names.
    pub nameless: bool,
    pub broken: Option<Broken>,
}

/// The protocol with one part of it missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody looks whether the lease holds before answering from memory.
    NoLease,
    /// A lapsed lease is won back by the head of the log as the renewing statement saw it, before its commit.
    HeadReadInTheRenewal,
    /// Whether the lease had lapsed is looked at when the renewal is sent, and not when its answer is there.
    LapseJudgedAtSending,
    /// The replica counts its lease from when the answer came.
    CountedFromTheAnswer,
    /// The replica's clock is slower than the margin allows: the assumption does not hold.
    ClockTooSlow,
    /// An introspection reads the memory first, and then looks whether the lease holds.
    MemoryReadBeforeTheLease,
}

impl Protocol {
    /// Whether a replica answers from its memory.
    fn trusts_memory(&self, replica: &Replica) -> bool {
        replica.is_up && (replica.own > 0 || self.broken == Some(Broken::NoLease))
    }

    /// Whether a revocation that was asked for at a replica may be acknowledged.
    fn may_acknowledge(world: &World, home: usize, revocation: u8) -> bool {
        let here = &world.replicas[home];
        let others = world.replicas.iter().enumerate().filter(|(n, _)| *n != home);
        let mut rows = others.filter_map(|(_, replica)| replica.row);
        here.waits_for & bit(revocation) != 0
            && here.applied >= revocation
            && rows.all(|row| row.left == 0 || row.applied >= revocation)
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
        if world.log < self.revocations {
            steps.push(Step::Revoke(n));
        }
        steps.extend(
            world.revocations().filter(|k| Self::may_acknowledge(world, n, *k)).map(|k| Step::Acknowledge(n, k)),
        );
        if replica.applied < world.log {
            steps.push(Step::Apply(n));
        }
        match replica.renewal {
            Renewal::None => steps.push(Step::SendRenewal(n)),
            Renewal::Sent { .. } => steps.push(Step::CarryRenewalOut(n)),
            Renewal::CarriedOut { .. } => steps.push(Step::CommitRenewal(n)),
            Renewal::Committed { .. } => steps.push(Step::ReceiveRenewal(n)),
            Renewal::AsksForHead { .. } => steps.push(Step::ReadHead(n)),
            Renewal::HasHead { head, .. } if replica.applied >= head => steps.push(Step::WinBack(n)),
            Renewal::HasHead { .. } => {}
        }
        if replica.renewal != Renewal::None {
            steps.push(Step::GiveUp(n));
        }
        if self.introspections {
            self.steps_of_introspection(replica, n, steps);
        }
    }

    fn steps_of_introspection(&self, replica: &Replica, n: usize, steps: &mut Vec<Step>) {
        let reads_first = self.broken == Some(Broken::MemoryReadBeforeTheLease);
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
            match &mut replica.renewal {
                Renewal::None => {}
                Renewal::Sent { left, .. }
                | Renewal::Committed { left, .. }
                | Renewal::AsksForHead { left }
                | Renewal::HasHead { left, .. } => less(left),
                Renewal::CarriedOut { left, row_left, .. } => {
                    less(left);
                    less(row_left);
                }
            }
        }
    }

    fn renew(&self, world: &mut World, step: Step) {
        let (broken, log) = (self.broken, world.log);
        let (Step::SendRenewal(n)
        | Step::CarryRenewalOut(n)
        | Step::CommitRenewal(n)
        | Step::ReceiveRenewal(n)
        | Step::ReadHead(n)
        | Step::WinBack(n)
        | Step::GiveUp(n)) = step
        else {
            return;
        };
        let replica = &mut world.replicas[n];
        replica.renewal = match (step, replica.renewal) {
            (Step::SendRenewal(_), Renewal::None) => {
                let left = if broken == Some(Broken::ClockTooSlow) { self.lease + 1 } else { self.lease };
                // Known when it is sent, and of use only to who does not look again.
                let had_lapsed = broken == Some(Broken::LapseJudgedAtSending) && replica.own == 0;
                Renewal::Sent { left, applied: replica.applied, had_lapsed }
            }
            (Step::CarryRenewalOut(_), Renewal::Sent { left, applied, had_lapsed }) => {
                let head = if broken == Some(Broken::HeadReadInTheRenewal) { log } else { 0 };
                Renewal::CarriedOut { left, applied, had_lapsed, row_left: self.lease, head }
            }
            (Step::CommitRenewal(_), Renewal::CarriedOut { left, applied, had_lapsed, row_left, head }) => {
                replica.row = Some(Row { left: row_left, applied });
                Renewal::Committed { left, had_lapsed, head }
            }
            (Step::ReceiveRenewal(_), Renewal::Committed { left, had_lapsed, head }) => {
                let left = if broken == Some(Broken::CountedFromTheAnswer) { self.lease } else { left };
                let has_lapsed =
                    if broken == Some(Broken::LapseJudgedAtSending) { had_lapsed } else { replica.own == 0 };
                match (has_lapsed, broken) {
                    (true, Some(Broken::HeadReadInTheRenewal)) => Renewal::HasHead { left, head },
                    (true, _) => Renewal::AsksForHead { left },
                    (false, _) => {
                        replica.own = replica.own.max(left);
                        Renewal::None
                    }
                }
            }
            (Step::ReadHead(_), Renewal::AsksForHead { left }) => Renewal::HasHead { left, head: log },
            (Step::WinBack(_), Renewal::HasHead { left, .. }) => {
                replica.own = left;
                Renewal::None
            }
            (Step::GiveUp(_), renewal) => {
                replica.stray = self.stray(renewal).or(replica.stray);
                Renewal::None
            }
            (_, renewal) => renewal,
        };
    }

    /// What is left of a renewal whose replica does not wait for it any more.
    fn stray(&self, renewal: Renewal) -> Option<u8> {
        match renewal {
            Renewal::Sent { applied, .. } | Renewal::CarriedOut { applied, .. } if self.strays => Some(applied),
            _ => None,
        }
    }

    fn introspect(world: &mut World, step: Step) {
        let (acknowledged, log) = (world.acknowledged, world.log);
        let (Step::BeginIntrospection(n)
        | Step::LookAtLease(n)
        | Step::AskStore(n)
        | Step::ReadMemory(n)
        | Step::Answer(n)) = step
        else {
            return;
        };
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
                next.replicas[n].waits_for |= bit(next.log);
            }
            Step::Acknowledge(n, k) => {
                next.acknowledged |= bit(k);
                next.replicas[n].waits_for &= !bit(k);
            }
            Step::Apply(n) => next.replicas[n].applied += 1,
            Step::CommitStray(n) => {
                let replica = &mut next.replicas[n];
                replica.row = replica.stray.take().map(|applied| Row { left: self.lease, applied });
            }
            Step::Crash(n) => {
                let replica = &mut next.replicas[n];
                let (row, stray) = (replica.row, self.stray(replica.renewal).or(replica.stray));
                *replica = Replica { row, stray, ..Replica::down() };
            }
            // A new process has a new name, and so a row of its own. That the row of the old one is waited for until it has
            // lapsed delays, and does nothing else: it is left out.
            Step::Join(n) => next.replicas[n] = Replica { is_up: true, ..Replica::down() },
            Step::SendRenewal(_)
            | Step::CarryRenewalOut(_)
            | Step::CommitRenewal(_)
            | Step::ReceiveRenewal(_)
            | Step::ReadHead(_)
            | Step::WinBack(_)
            | Step::GiveUp(_) => self.renew(&mut next, step),
            Step::BeginIntrospection(_)
            | Step::LookAtLease(_)
            | Step::AskStore(_)
            | Step::ReadMemory(_)
            | Step::Answer(_) => Self::introspect(&mut next, step),
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
                let waits = world.replicas.iter().any(|replica| replica.waits_for != 0 && replica.applied == world.log);
                let holds = |row: &Row| row.left > 0 && row.applied < world.log;
                waits && world.replicas.iter().any(|replica| replica.own > 0 && replica.row.as_ref().is_some_and(holds))
            }),
            Property::sometimes(
                "a lapsed lease is won back after a revocation that was acknowledged",
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

/// Promise 5.
pub const PROMISE: &str = "who asks after a revocation was acknowledged is never told `active`";
