//! States and steps of the model.

use std::fmt;

/// A global state: all replicas and the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SystemState {
    pub replicas: Vec<Replica>,
    /// The head of the log.
    pub log: u8,
    /// The acknowledged revocations: bit k - 1 is the k-th.
    pub acknowledged: u8,
    /// An introspection responded "active" for a token whose revocation had been acknowledged
    /// before the introspection started.
    pub is_violated: bool,
    /// The store has rolled back: it lost its first log entry and the rows of the replicas.
    pub has_rolled_back: bool,
    /// The ticks for which leases from before the rollback may be valid.
    pub grace: u8,
}

/// A process, and its row in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    pub is_up: bool,
    /// The log position up to which the memory has applied entries.
    pub applied: u8,
    /// The entry that it has applied at the first position is the lost one.
    pub is_stale: bool,
    /// The remaining ticks of the lease by the replica's own clock.
    pub own: u8,
    /// The revocations that were requested at this replica and are not acknowledged yet. With
    /// barriers, the second slot holds the request that finds its revocation in the log.
    pub rounds: [Round; 2],
    pub renewal: Renewal,
    pub introspection: Option<Introspection>,
    pub row: Option<Row>,
    /// An abandoned renewal that is still in flight: its applied position.
    pub stray: Option<u8>,
}

/// The progress of a revocation at the replica that handles the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Round {
    None,
    /// Only in a mutant: the rows have been read, and the entry is not in the log yet.
    RowsRead,
    /// Its entry is in the log.
    Committed,
    /// The rows have been read after the entry was committed. `left`: the ticks until every lease
    /// that was valid at that time has expired.
    Waiting {
        left: u8,
    },
}

/// A replica's row in the table `replicas`, which all replicas read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// The remaining ticks of the lease for an observer that saw this row when it was committed.
    pub left: u8,
    pub applied: u8,
    /// The revocations that wait for this replica.
    pub waited_for: u8,
    /// A replica has found this one dead and will remove the row.
    pub is_doomed: bool,
}

/// A renewal in progress. `left`: the ticks that would remain of the lease, counted from the moment
/// at which the renewal was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Renewal {
    None,
    /// The log and the memory contain the same entry at the applied position.
    Compared,
    Sent {
        left: u8,
        applied: u8,
    },
    /// The statement has read the log. The row is not committed, so no replica sees it yet.
    Executed {
        left: u8,
        applied: u8,
        head: u8,
    },
    Committed {
        left: u8,
        head: u8,
    },
    /// A separate statement reads the head.
    AwaitingHead {
        left: u8,
    },
    HasHead {
        left: u8,
        head: u8,
    },
}

/// An introspection in progress. `late`: the revocations that had been acknowledged when the
/// introspection started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Introspection {
    Started {
        late: u8,
    },
    /// The lease is valid, so the replica may answer from memory.
    MayUseMemory {
        late: u8,
    },
    /// The lease has lapsed, so the replica has read the head of the log from the store.
    HasHead {
        late: u8,
        head: u8,
    },
    /// Only in a mutant: the memory was read before the lease was checked.
    HasRead {
        late: u8,
        applied: u8,
    },
}

/// A step of the model. The first number is the replica, the second one the revocation.
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

    /// Returns the progress of a revocation that was requested at this replica.
    pub fn round(&self, revocation: u8) -> Round {
        self.rounds[usize::from(revocation) - 1]
    }

    /// Discards the memory and the lease.
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

    /// Returns the revocations whose entries are in the log.
    pub fn log_entries(&self) -> impl Iterator<Item = u8> + use<> {
        let lost = u8::from(self.has_rolled_back);
        1 + lost..=self.log + lost
    }

    /// Returns the log position of a revocation's entry. The entry after a lost one takes the lost
    /// one's position.
    pub fn position(&self, revocation: u8) -> u8 {
        revocation - u8::from(self.has_rolled_back)
    }

    /// Returns whether a replica would answer "active" from its memory for a token whose revocation
    /// was acknowledged.
    pub fn has_wrong_state(&self, replica: &Replica) -> bool {
        let is_acknowledged = |k: &u8| self.is_acknowledged(*k);
        self.log_entries().filter(is_acknowledged).any(|k| replica.is_stale || replica.applied < self.position(k))
    }

    /// Returns the rows of all replicas except this one.
    pub fn other_rows(&mut self, replica: usize) -> impl Iterator<Item = &mut Row> {
        let others = self.replicas.iter_mut().enumerate().filter(move |(n, _)| *n != replica);
        others.filter_map(|(_, replica)| replica.row.as_mut())
    }
}

/// Returns the bit of the k-th revocation in a set of revocations.
pub fn revocation_bit(revocation: u8) -> u8 {
    1 << (revocation - 1)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time passes"),
            Self::Revoke(n) => write!(f, "replica {n} commits a revocation"),
            Self::ReadRows(n, k) => write!(f, "replica {n} reads the rows that revocation {k} must wait for"),
            Self::Acknowledge(n, k) => {
                write!(f, "replica {n} waits for no other replica and acknowledges revocation {k}")
            }
            Self::Find(n) => write!(f, "a client requests a revocation at replica {n} that is in the log already"),
            Self::FindOther(n) => write!(f, "replica {n} reads the rows that the repeated request must wait for"),
            Self::ReportAlready(n) => write!(f, "replica {n} responds that the token is already revoked"),
            Self::Apply(n) => write!(f, "replica {n} applies the next entry"),
            Self::Compare(n) => write!(f, "replica {n} compares its last applied entry with the log"),
            Self::SendRenewal(n) => write!(f, "replica {n} sends a renewal"),
            Self::ExecuteRenewal(n) => write!(f, "the database executes the renewal of replica {n}"),
            Self::CommitRenewal(n) => write!(f, "the database commits the renewal of replica {n}"),
            Self::ReceiveRenewal(n) => write!(f, "replica {n} receives the response to its renewal"),
            Self::ReadHead(n) => write!(f, "the database reads the head of the log for replica {n}"),
            Self::AcquireLease(n) => {
                write!(f, "replica {n} has applied all entries up to the head and extends its lease")
            }
            Self::AbandonRenewal(n) => write!(f, "replica {n} abandons its renewal"),
            Self::CommitStray(n) => write!(f, "the database commits a renewal that replica {n} has abandoned"),
            Self::Crash(n) => write!(f, "replica {n} crashes"),
            Self::Join(n) => write!(f, "replica {n} starts"),
            Self::FindDead(n) => write!(f, "another replica finds replica {n} dead"),
            Self::Remove(n) => write!(f, "the row of replica {n} is removed"),
            Self::RollBackLog => {
                write!(f, "the database fails over to a standby that lost the last entry and all rows")
            }
            Self::BeginIntrospection(n) => write!(f, "replica {n} receives an introspection of every token"),
            Self::CheckLease(n) => write!(f, "replica {n} finds its lease valid"),
            Self::QueryStore(n) => write!(f, "replica {n} has no valid lease and reads the head of the log"),
            Self::ReadMemory(n) => write!(f, "replica {n} reads its memory"),
            Self::Respond(n) => write!(f, "replica {n} responds"),
        }
    }
}
