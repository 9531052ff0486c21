//! What there is at one moment, and what may happen next.

use std::fmt;

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SystemState {
    pub replicas: Vec<Replica>,
    /// The head of the log.
    pub log: u8,
    /// Which revocations have been acknowledged: bit k - 1 is the k-th.
    pub acknowledged: u8,
    /// Somebody was told "active" about a token whose revocation was acknowledged before they asked.
    pub is_violated: bool,
    /// The store has gone back: its first entry was lost, and the rows of the replicas with it.
    pub has_rolled_back: bool,
    /// How long leases from before that may hold.
    pub grace: u8,
}

/// A process, and its row in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    pub is_up: bool,
    /// Up to where its memory goes.
    pub applied: u8,
    /// What it has at the first place is the entry that was lost.
    pub is_stale: bool,
    /// What is left of its lease in its own eyes.
    pub own: u8,
    /// The revocations that were asked for here and are not acknowledged yet. Where one is found that is in the log already,
    /// the second place is for that.
    pub rounds: [Round; 2],
    pub renewal: Renewal,
    pub introspection: Option<Introspection>,
    pub row: Option<Row>,
    /// A renewal that was given up, and is still on its way: up to where the memory went.
    pub stray: Option<u8>,
}

/// A revocation, where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Round {
    None,
    /// Only in a broken variant: the rows have been looked at, and there is no entry yet.
    RowsRead,
    /// Its entry is in the log.
    Committed,
    /// The rows have been looked at since. `left`: until every lease of then is over.
    Waiting {
        left: u8,
    },
}

/// What everybody sees of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// What is left of the lease in the eyes of who has watched this row since it was committed.
    pub left: u8,
    pub applied: u8,
    /// Which revocations wait for it.
    pub waited_for: u8,
    /// Somebody has found it dead, and is about to remove it.
    pub is_doomed: bool,
}

/// A renewal on its way. `left`: what would be left of the lease, counted from when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Renewal {
    None,
    /// What stands in the log at the end of the memory is what stands there in the memory.
    Compared,
    Sent {
        left: u8,
        applied: u8,
    },
    /// The statement has seen the log. Nobody sees the row yet.
    Executed {
        left: u8,
        applied: u8,
        head: u8,
    },
    Committed {
        left: u8,
        head: u8,
    },
    /// The head is read by a statement of its own.
    AwaitingHead {
        left: u8,
    },
    HasHead {
        left: u8,
        head: u8,
    },
}

/// An introspection under way. `late`: the revocations that had been acknowledged when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Introspection {
    Started {
        late: u8,
    },
    /// The lease holds, so it may answer from memory.
    MayUseMemory {
        late: u8,
    },
    /// The lease does not hold, so it has asked the store.
    HasHead {
        late: u8,
        head: u8,
    },
    /// Only in a broken variant: the memory was read before the lease was looked at.
    HasRead {
        late: u8,
        applied: u8,
    },
}

/// Something that happens. The first number is the replica's, the second one the revocation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Tick,
    Revoke(usize),
    ReadRows(usize, u8),
    Acknowledge(usize, u8),
    Find(usize),
    FindOther(usize),
    ReportAlready(usize),
    Apply(usize),
    Compare(usize),
    SendRenewal(usize),
    ExecuteRenewal(usize),
    CommitRenewal(usize),
    ReceiveRenewal(usize),
    ReadHead(usize),
    AcquireLease(usize),
    AbandonRenewal(usize),
    CommitStray(usize),
    Crash(usize),
    Join(usize),
    FindDead(usize),
    Remove(usize),
    RollBackLog,
    BeginIntrospection(usize),
    CheckLease(usize),
    QueryStore(usize),
    ReadMemory(usize),
    Respond(usize),
}

impl Replica {
    pub fn down() -> Self {
        Self {
            is_up: false,
            applied: 0,
            is_stale: false,
            own: 0,
            rounds: [Round::None; 2],
            renewal: Renewal::None,
            introspection: None,
            row: None,
            stray: None,
        }
    }

    /// How far a revocation is that was asked for here.
    pub fn round(&self, revocation: u8) -> Round {
        self.rounds[usize::from(revocation) - 1]
    }

    /// It knows nothing any more.
    pub fn forget(&mut self) {
        (self.applied, self.is_stale, self.own) = (0, false, 0);
    }

    pub fn set_round(&mut self, revocation: u8, round: Round) {
        self.rounds[usize::from(revocation) - 1] = round;
    }
}

impl SystemState {
    pub fn is_acknowledged(&self, revocation: u8) -> bool {
        self.acknowledged & revocation_bit(revocation) != 0
    }

    /// The revocations whose entries are in the log.
    pub fn log_entries(&self) -> impl Iterator<Item = u8> + use<> {
        let lost = u8::from(self.has_rolled_back);
        1 + lost..=self.log + lost
    }

    /// The place of a revocation's entry: what comes after a lost one gets its place.
    pub fn position(&self, revocation: u8) -> u8 {
        revocation - u8::from(self.has_rolled_back)
    }

    /// Whether a replica would say "active" by its memory, of a token whose revocation was acknowledged.
    pub fn has_wrong_state(&self, replica: &Replica) -> bool {
        let is_acknowledged = |k: &u8| self.is_acknowledged(*k);
        self.log_entries().filter(is_acknowledged).any(|k| replica.is_stale || replica.applied < self.position(k))
    }

    /// The rows of all replicas but this one.
    pub fn other_rows(&mut self, replica: usize) -> impl Iterator<Item = &mut Row> {
        let others = self.replicas.iter_mut().enumerate().filter(move |(n, _)| *n != replica);
        others.filter_map(|(_, replica)| replica.row.as_mut())
    }
}

/// The k-th revocation, in a set of them.
pub fn revocation_bit(revocation: u8) -> u8 {
    1 << (revocation - 1)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time passes"),
            Self::Revoke(n) => write!(f, "replica {n} commits a revocation"),
            Self::ReadRows(n, k) => write!(f, "replica {n} sees for whom revocation {k} has to wait"),
            Self::Acknowledge(n, k) => {
                write!(f, "replica {n} waits for nobody any more and acknowledges revocation {k}")
            }
            Self::Find(n) => write!(f, "somebody wants it revoked at replica {n}, and it is in the log already"),
            Self::FindOther(n) => write!(f, "replica {n} sees for whom it has to wait before it may say so"),
            Self::ReportAlready(n) => write!(f, "replica {n} says that it is revoked already"),
            Self::Apply(n) => write!(f, "replica {n} applies the next entry"),
            Self::Compare(n) => write!(f, "replica {n} compares the end of its memory with the log"),
            Self::SendRenewal(n) => write!(f, "replica {n} sends a renewal"),
            Self::ExecuteRenewal(n) => write!(f, "the database carries the renewal of replica {n} out"),
            Self::CommitRenewal(n) => write!(f, "the database commits the renewal of replica {n}"),
            Self::ReceiveRenewal(n) => write!(f, "replica {n} receives the answer to its renewal"),
            Self::ReadHead(n) => write!(f, "the database reads the log's head for replica {n}"),
            Self::AcquireLease(n) => write!(f, "replica {n} has applied up to the head, and the lease is its own"),
            Self::AbandonRenewal(n) => write!(f, "replica {n} gives its renewal up"),
            Self::CommitStray(n) => write!(f, "the database commits a renewal that replica {n} has given up"),
            Self::Crash(n) => write!(f, "replica {n} crashes"),
            Self::Join(n) => write!(f, "replica {n} starts"),
            Self::FindDead(n) => write!(f, "somebody takes replica {n} for dead"),
            Self::Remove(n) => write!(f, "the row of replica {n} is removed"),
            Self::RollBackLog => {
                write!(f, "the database fails over to one that has lost the last entry, and the rows since")
            }
            Self::BeginIntrospection(n) => write!(f, "somebody asks replica {n} about every token"),
            Self::CheckLease(n) => write!(f, "replica {n} sees that its lease holds"),
            Self::QueryStore(n) => write!(f, "replica {n} has no lease, and reads the log's head"),
            Self::ReadMemory(n) => write!(f, "replica {n} looks into its memory"),
            Self::Respond(n) => write!(f, "replica {n} answers"),
        }
    }
}
