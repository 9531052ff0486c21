//! The workload: tens of clients that issue, introspect and revoke tokens at random replicas.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    admin_requests::AdminRequest,
    bulk_changes::BulkChange,
    cluster::REPLICAS,
    history::{Action, ChangeResult, Target},
    recorder::{IssuedToken, Recorder},
    seeded_rng::SeededRng,
};

/// Number of clients.
const CLIENT_COUNT: usize = 32;
/// Maximum number of clients at one replica: a paused replica must not occupy all of them.
const MAX_REQUESTS_PER_REPLICA: usize = 10;
/// Maximum number of tokens that the clients keep and use.
const MAX_KEPT_TOKENS: usize = 200;
/// Number of kept tokens that count as recent, and of changed tokens that get extra questions.
const RECENT_TOKENS: usize = 20;
/// Maximum age of a kept token. Tokens are valid for five minutes.
const MAX_TOKEN_AGE: Duration = Duration::from_mins(2);
/// Number of tokens that are revoked after the faults, when none is injected.
const FINAL_REVOCATIONS: usize = 60;
/// Number of requesters.
const REQUESTER_COUNT: u64 = 12;
/// Number of tokens that are introspected after a change that covers more than one.
const CHECKED_TOKENS: usize = 6;
/// Maximum number of retries of a change whose result is unknown.
const MAX_RETRIES: usize = 5;

/// All clients, and the tokens that they share.
pub struct Workload {
    pub(crate) recorder: Arc<Recorder>,
    tokens: Mutex<VecDeque<(Duration, IssuedToken)>>,
    /// Tokens that were changed last. They are introspected more often than others.
    changed: Mutex<VecDeque<IssuedToken>>,
    /// Changes that are still to be made once, independent of the random choices.
    required_changes: Mutex<Vec<BulkChange>>,
    permits: [Semaphore; REPLICAS],
    is_over: AtomicBool,
}

impl Workload {
    pub fn new(recorder: Arc<Recorder>) -> Arc<Self> {
        let permits = std::array::from_fn(|_| Semaphore::new(MAX_REQUESTS_PER_REPLICA));
        Arc::new(Self {
            recorder,
            tokens: Mutex::default(),
            changed: Mutex::default(),
            required_changes: Mutex::new(BulkChange::ALL.to_vec()),
            permits,
            is_over: AtomicBool::new(false),
        })
    }

    /// Starts the clients. They run until [`Self::stop`].
    pub fn spawn_clients(self: &Arc<Self>, rng: &mut SeededRng) -> JoinSet<()> {
        (0..CLIENT_COUNT).map(|_| Arc::clone(self).run_client(rng.split())).collect()
    }

    /// Stops the clients. Each completes its current operation first.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    async fn run_client(self: Arc<Self>, mut rng: SeededRng) {
        while !self.is_over.load(Ordering::SeqCst) {
            let at = rng.below(REPLICAS);
            let Ok(_permit) = self.permits[at].try_acquire() else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            match rng.below(100) {
                0..25 => self.open(at, &mut rng).await,
                25..40 => self.derive(at, &mut rng).await,
                40..43 => self.reuse_assertion(&mut rng).await,
                43..85 => self.introspect(at, &mut rng).await,
                _ => self.change(at, &mut rng).await,
            }
            // A replica that does not respond gets requests less often.
            let max_delay_ms = if self.recorder.is_silent(at) { 400 } else { 30 };
            tokio::time::sleep(Duration::from_millis(rng.between(0, max_delay_ms))).await;
        }
    }

    /// Returns any kept token, and a recent one half of the time: most of the old ones have ended.
    fn random_token(&self, rng: &mut SeededRng) -> Option<IssuedToken> {
        let tokens = self.tokens.lock().unwrap();
        let candidates = if rng.below(2) == 0 { tokens.len() } else { tokens.len().min(RECENT_TOKENS) };
        tokens.iter().rev().nth(rng.below(candidates)).map(|(_, issued)| issued.clone())
    }

    /// Keeps an issued token for later operations, and drops the oldest ones.
    pub(crate) fn remember(&self, issued: Option<IssuedToken>) {
        let now = self.recorder.now();
        let mut tokens = self.tokens.lock().unwrap();
        tokens.extend(issued.map(|issued| (now, issued)));
        while tokens.len() > MAX_KEPT_TOKENS
            || tokens.front().is_some_and(|(issued_at, _)| *issued_at + MAX_TOKEN_AGE < now)
        {
            tokens.pop_front();
        }
    }

    async fn open(&self, at: usize, rng: &mut SeededRng) {
        let (agent, requester) = match rng.below(10) {
            0..3 => ("planner", random_requester(rng)),
            3..5 => return self.open_by_grant(at, &random_requester(rng), rng).await.map_or((), drop),
            _ => ("reader", random_requester(rng)),
        };
        self.remember(self.recorder.open(at, agent, &requester).await);
    }

    async fn derive(&self, at: usize, rng: &mut SeededRng) {
        let Some(parent) = self.random_token(rng) else { return };
        let can_delegate = parent.token.agents.iter().all(|agent| agent == "planner");
        let child = if !can_delegate || rng.below(2) == 0 {
            self.recorder.derive(at, &parent).await
        } else {
            self.recorder.delegate(at, &parent).await
        };
        self.remember(child);
    }

    /// Sends one client assertion to all replicas at the same time.
    async fn reuse_assertion(&self, rng: &mut SeededRng) {
        let (assertion, requester) = (self.recorder.assertion(), random_requester(rng));
        let exchanges = (0..REPLICAS).map(|at| self.recorder.open_with_assertion(at, &requester, assertion.clone()));
        for issued in join_all(exchanges).await {
            self.remember(issued);
        }
    }

    async fn introspect(&self, at: usize, rng: &mut SeededRng) {
        let changed = {
            let changed = self.changed.lock().unwrap();
            changed.get(rng.below(2 * changed.len())).cloned()
        };
        if let Some(issued) = changed.or_else(|| self.random_token(rng)) {
            self.recorder.introspect(at, &issued).await;
        }
    }

    /// Makes a random change that covers a token. If it takes effect, introspects the token at
    /// every replica.
    async fn change(&self, at: usize, rng: &mut SeededRng) {
        let Some(issued) = self.random_token(rng) else { return };
        let required = self.required_changes.lock().unwrap().pop();
        if let Some(change) = required {
            return self.apply_change(change, &issued, rng).await;
        }
        let token = &issued.token;
        let request = match rng.below(1000) {
            0..205 => AdminRequest::change(Action::End, Target::Token(token.id.clone())),
            205..385 => {
                let result = self.recorder.revoke_by_client(at, &issued).await;
                return self.introspect_after(&issued, result).await;
            }
            385..455 => return self.send_twice(&issued, rng).await,
            455..525 => AdminRequest::change(Action::End, Target::Task(token.task.clone())),
            525..575 => AdminRequest::transition(&token.task, "complete"),
            575..615 => AdminRequest::transition(&token.task, "fail"),
            615..825 => return self.suspend_and_resume(at, &issued, rng).await,
            825..855 => return self.apply_change(BulkChange::EndRequester, &issued, rng).await,
            855..885 => return self.apply_change(BulkChange::EndTasks, &issued, rng).await,
            885..900 => return self.apply_change(BulkChange::SuspendTasks, &issued, rng).await,
            900..925 => return self.apply_change(BulkChange::BlockRequester, &issued, rng).await,
            925..940 => return self.apply_change(BulkChange::BlockAgent, &issued, rng).await,
            940..980 => return self.apply_change(BulkChange::RevokeGrant, &issued, rng).await,
            // The following changes end most of the tokens.
            980..985 => return self.apply_change(BulkChange::EndAgent, &issued, rng).await,
            985..988 => return self.apply_change(BulkChange::EndResource, &issued, rng).await,
            988..991 => return self.apply_change(BulkChange::EndIssuer, &issued, rng).await,
            991..995 => return self.apply_change(BulkChange::RemoveKey, &issued, rng).await,
            _ => return self.apply_change(BulkChange::BlockMainAgent, &issued, rng).await,
        };
        let result = self.send_admin_request_from(at, &request, rng).await;
        self.introspect_after(&issued, result).await;
    }

    /// Sends a change to a random replica. Mostly retries at random replicas while the result is
    /// unknown.
    pub(crate) async fn send_admin_request(&self, request: &AdminRequest, rng: &mut SeededRng) -> ChangeResult {
        self.send_admin_request_from(rng.below(REPLICAS), request, rng).await
    }

    async fn send_admin_request_from(&self, at: usize, request: &AdminRequest, rng: &mut SeededRng) -> ChangeResult {
        let mut result = self.recorder.send_admin_request(at, request).await;
        // A change of more than one task is always retried: its result matters for more tokens.
        let is_broad = !matches!(request.target, Target::Token(_) | Target::Task(_));
        for _ in 0..MAX_RETRIES {
            if result != ChangeResult::Unknown || !is_broad && rng.below(2) == 0 {
                break;
            }
            result = self.recorder.send_admin_request(rng.below(REPLICAS), request).await;
        }
        result
    }

    /// Sends the same change to two replicas at once. The second request may be acknowledged at
    /// once, but not before the change is in effect.
    async fn send_twice(&self, issued: &IssuedToken, rng: &mut SeededRng) {
        let (one, other) = (rng.below(REPLICAS), rng.below(REPLICAS));
        let transitions = ["", "suspend", "complete"];
        if let transition @ ("suspend" | "complete") = transitions[rng.below(transitions.len())] {
            let send_transition = async |at| {
                self.introspect_after(
                    issued,
                    self.recorder
                        .send_admin_request(at, &AdminRequest::transition(&issued.token.task, transition))
                        .await,
                )
                .await;
            };
            tokio::join!(send_transition(one), send_transition(other));
            return;
        }
        let end = Target::Token(issued.token.id.clone());
        let first = async { self.introspect_after(issued, self.recorder.revoke(one, end).await).await };
        let second = async { self.introspect_after(issued, self.recorder.revoke_by_client(other, issued).await).await };
        tokio::join!(first, second);
    }

    /// Suspends the task of a token, and resumes it in three of four cases.
    async fn suspend_and_resume(&self, at: usize, issued: &IssuedToken, rng: &mut SeededRng) {
        let result =
            self.send_admin_request_from(at, &AdminRequest::transition(&issued.token.task, "suspend"), rng).await;
        self.introspect_after(issued, result).await;
        if rng.below(4) > 0 {
            let result = self.send_admin_request(&AdminRequest::transition(&issued.token.task, "resume"), rng).await;
            self.introspect_after(issued, result).await;
        }
    }

    /// Introspects some of the tokens that the target covers. A selection without a requester may
    /// cover any token.
    pub(crate) async fn introspect_some(&self, target: &Target, result: ChangeResult) {
        let is_covered = |issued: &IssuedToken| match target {
            Target::Tasks(selection) => selection.requester.as_ref().is_none_or(|r| *r == issued.token.requester),
            target => issued.token.revocation_targets().any(|covering| covering == *target),
        };
        let covered = {
            let tokens = self.tokens.lock().unwrap();
            let recent_first = tokens.iter().rev().map(|(_, issued)| issued);
            recent_first.filter(|issued| is_covered(issued)).take(CHECKED_TOKENS).cloned().collect::<Vec<_>>()
        };
        for issued in &covered {
            self.introspect_after(issued, result).await;
        }
    }

    /// Returns the tasks of some random tokens.
    pub(crate) fn some_tasks(&self, rng: &mut SeededRng) -> BTreeSet<String> {
        (0..CHECKED_TOKENS).filter_map(|_| self.random_token(rng)).map(|issued| issued.token.task).collect()
    }

    /// Introspects a token at every replica, if the change that covers it is in effect.
    pub(crate) async fn introspect_after(&self, issued: &IssuedToken, result: ChangeResult) {
        if result.is_effective() {
            {
                let mut changed = self.changed.lock().unwrap();
                changed.push_front(issued.clone());
                changed.truncate(RECENT_TOKENS);
            }
            join_all((0..REPLICAS).map(|at| self.recorder.introspect(at, issued))).await;
        }
    }

    /// Revokes tokens one after the other, without faults or other clients. Some are suspended and
    /// resumed first.
    pub async fn revoke_all(&self) {
        for n in 0..FINAL_REVOCATIONS {
            let (at, other) = (n % REPLICAS, (n + 1) % REPLICAS);
            if let Some(issued) = self.recorder.open(at, "reader", "bob").await {
                self.introspect_after(&issued, ChangeResult::Done).await;
                for transition in ["suspend", "resume"] {
                    if n % 4 == 0 {
                        let result = self
                            .recorder
                            .send_admin_request(other, &AdminRequest::transition(&issued.token.task, transition))
                            .await;
                        self.introspect_after(&issued, result).await;
                    }
                }
                let result = self.recorder.revoke(other, Target::Token(issued.token.id.clone())).await;
                self.introspect_after(&issued, result).await;
            }
        }
    }

    /// Issues a token at one replica, and revokes it at another.
    pub async fn revoke_one(&self, at: usize, other: usize) {
        if let Some(issued) = self.recorder.open(at, "reader", "bob").await {
            let result = self.recorder.revoke(other, Target::Token(issued.token.id.clone())).await;
            self.introspect_after(&issued, result).await;
        }
    }

    /// Introspects every kept token at every replica.
    pub async fn introspect_all(&self) {
        let tokens = self.tokens.lock().unwrap().iter().map(|(_, issued)| issued.clone()).collect::<Vec<_>>();
        for issued in &tokens {
            self.introspect_after(issued, ChangeResult::Done).await;
        }
    }
}

fn random_requester(rng: &mut SeededRng) -> String {
    format!("alice-{}", rng.between(0, REQUESTER_COUNT))
}
