//! Optimistic concurrency: decide on a snapshot, commit, and decide again if another writer was
//! faster.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::{
    app::{
        ConflictError, Error, LogicError, Service,
        commit::{
            approval::redeems_approval_only,
            idempotency::{Idempotent, Replay},
        },
        replication::propagation::UnloggedWrite,
    },
    domain::replication::Propagation,
    ports::{WriteOutcome, WriteSet},
};

/// How often a change is decided before it is refused as contended.
const MAX_COMMIT_ATTEMPTS: usize = 5;

/// What one attempt decides on the state that it read.
pub(in crate::app) enum Decision<T> {
    /// Commit the write, wait until its log entries are propagated, and answer `T`.
    Write(Box<WriteSet>, T),
    /// Commit a write that has no log entry, and answer `T`. Nothing has to be propagated.
    WriteUnlogged(Box<UnloggedWrite>, T),
    /// Answer without writing: the state is already as requested.
    Answer(T),
    /// Refuse: the state does not allow the change. An `Err` with a [`ConflictError`] decides the
    /// same.
    Refuse(ConflictError),
}

/// How a change ended.
pub(in crate::app) enum Completion<T, R> {
    /// The change is durable, or was not needed. With log entries: how far they are propagated.
    Done(T, Option<Propagation>),
    /// An earlier request with the same idempotency key made the change.
    Replayed(Replay<R>),
    /// The state does not allow the change, or other writers were faster in every attempt.
    Refused(ConflictError),
}

/// The races that a write can lose, by its guards. Any other loss contradicts the contract of the
/// store.
#[derive(Clone, Copy)]
struct Races {
    has_precondition: bool,
    has_replay_guard: bool,
    /// Whether the only replay guards are those of an approval.
    is_over_approval: bool,
}

impl Races {
    fn of(write: &WriteSet) -> Self {
        Self {
            has_precondition: write.precondition.is_some(),
            has_replay_guard: !write.replay_guards.is_empty(),
            is_over_approval: redeems_approval_only(write),
        }
    }
}

/// How a commit ended.
enum CommitAttempt<R> {
    Committed,
    Replayed(R),
    LostRace,
}

impl<R: DeserializeOwned> CommitAttempt<R> {
    fn from_outcome(outcome: WriteOutcome, races: Races, request: &Idempotent<R>) -> Result<Self, Error> {
        match outcome {
            WriteOutcome::Committed { .. } => Ok(Self::Committed),
            WriteOutcome::AlreadyApplied { fingerprint, response, .. } => {
                request.parse_response(&fingerprint, &response).map(Self::Replayed)
            }
            WriteOutcome::Conflict if races.has_precondition => Ok(Self::LostRace),
            WriteOutcome::Replayed if races.has_replay_guard => Ok(Self::LostRace),
            WriteOutcome::Conflict => Err(LogicError::ImpossibleOutcome("conflict").into()),
            WriteOutcome::Replayed => Err(LogicError::ImpossibleOutcome("replayed").into()),
        }
    }
}

impl Service {
    /// Makes a change on the state that `decide` reads. If another writer changed that state before
    /// the commit, `decide` is called again, with the number of the attempt (from 0).
    ///
    /// A request whose idempotency key was used before gets the stored response. The key is looked
    /// up before the first attempt, by each commit, and before an answer without a write or a
    /// refusal: the same request may have been carried out a moment ago, on another replica, and be
    /// the reason for both.
    pub(in crate::app) async fn commit_with_retry<T, R, F>(
        &self,
        request: &Idempotent<R>,
        max_wait: Option<Duration>,
        decide: impl Fn(usize) -> F,
    ) -> Result<Completion<T, R>, Error>
    where
        R: DeserializeOwned,
        F: Future<Output = Result<Decision<T>, Error>>,
    {
        if let Some(replay) = self.find_replay(request, max_wait).await? {
            return Ok(Completion::Replayed(replay));
        }
        for attempt in 0..MAX_COMMIT_ATTEMPTS {
            let decision = match decide(attempt).await {
                Err(Error::Conflict(conflict)) => Decision::Refuse(conflict),
                decision => decision?,
            };
            let (races, answer, (outcome, propagation)) = match decision {
                Decision::Write(write, answer) => {
                    (Races::of(&write), answer, self.inner.writer.commit_and_propagate(*write, max_wait).await?)
                }
                Decision::WriteUnlogged(write, answer) => {
                    let races = Races::of(write.as_write_set());
                    (races, answer, (self.inner.writer.commit_unlogged(*write).await?, None))
                }
                Decision::Answer(answer) => {
                    let replay = self.find_replay(request, max_wait).await?;
                    return Ok(replay.map_or(Completion::Done(answer, None), Completion::Replayed));
                }
                Decision::Refuse(conflict) => {
                    let replay = self.find_replay(request, max_wait).await?;
                    return Ok(replay.map_or(Completion::Refused(conflict), Completion::Replayed));
                }
            };
            let is_used = races.is_over_approval && outcome == WriteOutcome::Replayed;
            match CommitAttempt::from_outcome(outcome, races, request)? {
                CommitAttempt::Committed => return Ok(Completion::Done(answer, propagation)),
                CommitAttempt::Replayed(response) => return Ok(Completion::Replayed(Replay { response, propagation })),
                // Another attempt would find the same.
                CommitAttempt::LostRace if is_used => {
                    let replay = self.find_replay(request, max_wait).await?;
                    let refusal = ConflictError::ApprovalInvalid(
                        "was used before, or another one of the same act was used in the last 15 minutes",
                    );
                    return Ok(replay.map_or(Completion::Refused(refusal), Completion::Replayed));
                }
                CommitAttempt::LostRace => {}
            }
        }
        Ok(Completion::Refused(ConflictError::ConcurrentUpdate))
    }

    /// Commits a write that builds on no state, so that it can't lose a race. Returns the stored
    /// response if an earlier request with the same idempotency key was carried out.
    pub(in crate::app) async fn commit_once<R: DeserializeOwned>(
        &self,
        request: &Idempotent<R>,
        write: WriteSet,
    ) -> Result<Option<R>, Error> {
        let races = Races { has_precondition: false, has_replay_guard: false, is_over_approval: false };
        match CommitAttempt::from_outcome(self.inner.writer.commit(write).await?, races, request)? {
            CommitAttempt::Committed => Ok(None),
            CommitAttempt::Replayed(response) => Ok(Some(response)),
            CommitAttempt::LostRace => Err(LogicError::ImpossibleOutcome("conflict").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::time::Timestamp, ports::IdempotentRequest};

    fn request() -> Idempotent<u64> {
        Idempotent::from(IdempotentRequest {
            caller: "admin:ops".into(),
            key: "k".into(),
            fingerprint: "f".into(),
            response: String::new(),
            keep_until: Timestamp::MAX,
        })
    }

    fn applied(fingerprint: &str, response: &str) -> WriteOutcome {
        WriteOutcome::AlreadyApplied { fingerprint: fingerprint.into(), response: response.into(), seq: None }
    }

    #[test]
    fn outcome_without_its_guard_is_a_logic_error() {
        for (has_precondition, has_replay_guard) in [(false, false), (false, true), (true, false), (true, true)] {
            let races = Races { has_precondition, has_replay_guard, is_over_approval: false };
            let attempt = |outcome| CommitAttempt::from_outcome(outcome, races, &request());
            let committed = attempt(WriteOutcome::Committed { seq: None });
            assert!(matches!(committed, Ok(CommitAttempt::Committed)));
            for (outcome, is_possible) in
                [(WriteOutcome::Conflict, has_precondition), (WriteOutcome::Replayed, has_replay_guard)]
            {
                match attempt(outcome) {
                    Ok(CommitAttempt::LostRace) => assert!(is_possible),
                    Err(Error::Internal(LogicError::ImpossibleOutcome(_))) => assert!(!is_possible),
                    _ => panic!("{has_precondition} {has_replay_guard}"),
                }
            }
        }
    }

    #[test]
    fn stored_response_is_returned_for_the_same_request_only() {
        let races = Races { has_precondition: false, has_replay_guard: false, is_over_approval: false };
        let attempt = |outcome, request| CommitAttempt::from_outcome(outcome, races, request);
        let same = request();
        assert!(matches!(attempt(applied("f", "7"), &same), Ok(CommitAttempt::Replayed(7))));
        let other = attempt(applied("g", "7"), &same);
        assert!(matches!(other, Err(Error::Conflict(ConflictError::IdempotencyKeyReused))));
        assert!(matches!(attempt(applied("f", "no number"), &same), Err(Error::Unavailable(_))));
        let keyless = Idempotent::without_key();
        let without_key = attempt(applied("f", "7"), &keyless);
        assert!(matches!(without_key, Err(Error::Internal(LogicError::ImpossibleOutcome(_)))));
    }
}
