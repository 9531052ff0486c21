//! Tens of clients that issue, ask and take back, each at a replica of its choice.

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

/// How many clients there are.
const CLIENT_COUNT: usize = 32;
/// How many of them may be at one replica: one that is paused must not hold all of them.
const MAX_REQUESTS_PER_REPLICA: usize = 10;
/// How many tokens are asked about.
const MAX_KEPT_TOKENS: usize = 200;
/// How many of them are young.
const RECENT_TOKENS: usize = 20;
/// How old they get. They live for five minutes.
const MAX_TOKEN_AGE: Duration = Duration::from_mins(2);
/// How many are taken back in calm weather.
const FINAL_REVOCATIONS: usize = 60;
/// How many requesters there are.
const REQUESTER_COUNT: u64 = 12;
/// How many tokens are looked at after a change of more than one.
const CHECKED_TOKENS: usize = 6;
/// How often what got no answer is sent again.
const MAX_RETRIES: usize = 5;

/// All clients.
pub struct Workload {
    pub(crate) recorder: Arc<Recorder>,
    tokens: Mutex<VecDeque<(Duration, IssuedToken)>>,
    /// What was changed last: that is worth more questions than one.
    changed: Mutex<VecDeque<IssuedToken>>,
    /// What each of them does at least once, whatever the dice say.
    pub(crate) first: Mutex<Vec<BulkChange>>,
    permits: [Semaphore; REPLICAS],
    is_over: AtomicBool,
}

impl Workload {
    pub fn new(caller: Arc<Recorder>) -> Arc<Self> {
        let places = std::array::from_fn(|_| Semaphore::new(MAX_REQUESTS_PER_REPLICA));
        Arc::new(Self {
            recorder: caller,
            tokens: Mutex::default(),
            changed: Mutex::default(),
            first: Mutex::new(BulkChange::ALL.to_vec()),
            permits: places,
            is_over: AtomicBool::new(false),
        })
    }

    /// Lets them come. They go on until they are sent home.
    pub fn spawn_clients(self: &Arc<Self>, dice: &mut SeededRng) -> JoinSet<()> {
        (0..CLIENT_COUNT).map(|_| Arc::clone(self).run_client(dice.split())).collect()
    }

    /// Sends them home: each ends what it is at.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    async fn run_client(self: Arc<Self>, mut dice: SeededRng) {
        while !self.is_over.load(Ordering::SeqCst) {
            let at = dice.below(REPLICAS);
            let Ok(_place) = self.permits[at].try_acquire() else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            match dice.below(100) {
                0..25 => self.open(at, &mut dice).await,
                25..40 => self.derive(at, &mut dice).await,
                40..43 => self.reuse_assertion(&mut dice).await,
                43..85 => self.introspect(at, &mut dice).await,
                _ => self.change(at, &mut dice).await,
            }
            // Who is down need not be asked as fast as one can.
            let long = if self.recorder.is_silent(at) { 400 } else { 30 };
            tokio::time::sleep(Duration::from_millis(dice.between(0, long))).await;
        }
    }

    /// Any token, and half of the time a young one: of the old ones most have ended.
    fn random_token(&self, dice: &mut SeededRng) -> Option<IssuedToken> {
        let tokens = self.tokens.lock().unwrap();
        let among = if dice.below(2) == 0 { tokens.len() } else { tokens.len().min(RECENT_TOKENS) };
        tokens.iter().rev().nth(dice.below(among)).map(|(_, issued)| issued.clone())
    }

    pub(crate) fn remember(&self, issued: Option<IssuedToken>) {
        let now = self.recorder.now();
        let mut tokens = self.tokens.lock().unwrap();
        tokens.extend(issued.map(|issued| (now, issued)));
        while tokens.len() > MAX_KEPT_TOKENS || tokens.front().is_some_and(|(had, _)| *had + MAX_TOKEN_AGE < now) {
            tokens.pop_front();
        }
    }

    async fn open(&self, at: usize, dice: &mut SeededRng) {
        let (agent, requester) = match dice.below(10) {
            0..3 => ("planner", random_requester(dice)),
            3..5 => return self.open_by_grant(at, &random_requester(dice), dice).await.map_or((), drop),
            _ => ("reader", random_requester(dice)),
        };
        self.remember(self.recorder.open(at, agent, &requester).await);
    }

    async fn derive(&self, at: usize, dice: &mut SeededRng) {
        let Some(from) = self.random_token(dice) else { return };
        let hands_over = from.token.agents.iter().all(|agent| agent == "planner");
        let child = if !hands_over || dice.below(2) == 0 {
            self.recorder.derive(at, &from).await
        } else {
            self.recorder.delegate(at, &from).await
        };
        self.remember(child);
    }

    /// One assertion, at all replicas at once.
    async fn reuse_assertion(&self, dice: &mut SeededRng) {
        let (assertion, requester) = (self.recorder.assertion(), random_requester(dice));
        let tries = (0..REPLICAS).map(|at| self.recorder.open_with_assertion(at, &requester, assertion.clone()));
        for issued in join_all(tries).await {
            self.remember(issued);
        }
    }

    async fn introspect(&self, at: usize, dice: &mut SeededRng) {
        let changed = {
            let changed = self.changed.lock().unwrap();
            changed.get(dice.below(2 * changed.len())).cloned()
        };
        if let Some(issued) = changed.or_else(|| self.random_token(dice)) {
            self.recorder.introspect(at, &issued).await;
        }
    }

    /// Changes something about a token, and if that was acknowledged, looks at every replica whether it is so.
    async fn change(&self, at: usize, dice: &mut SeededRng) {
        let Some(issued) = self.random_token(dice) else { return };
        let first = self.first.lock().unwrap().pop();
        if let Some(act) = first {
            return self.apply_change(act, &issued, dice).await;
        }
        let token = &issued.token;
        let wish = match dice.below(1000) {
            0..205 => AdminRequest::change(Action::End, Target::Token(token.id.clone())),
            205..385 => {
                let told = self.recorder.revoke_by_client(at, &issued).await;
                return self.introspect_after(&issued, told).await;
            }
            385..455 => return self.send_twice(&issued, dice).await,
            455..525 => AdminRequest::change(Action::End, Target::Task(token.task.clone())),
            525..575 => AdminRequest::transition(&token.task, "complete"),
            575..615 => AdminRequest::transition(&token.task, "fail"),
            615..825 => return self.suspend_and_resume(at, &issued, dice).await,
            825..855 => return self.apply_change(BulkChange::EndRequester, &issued, dice).await,
            855..885 => return self.apply_change(BulkChange::EndTasks, &issued, dice).await,
            885..900 => return self.apply_change(BulkChange::SuspendTasks, &issued, dice).await,
            900..925 => return self.apply_change(BulkChange::BlockRequester, &issued, dice).await,
            925..940 => return self.apply_change(BulkChange::BlockAgent, &issued, dice).await,
            940..980 => return self.apply_change(BulkChange::WithdrawGrant, &issued, dice).await,
            // These end most of what there is.
            980..985 => return self.apply_change(BulkChange::EndAgent, &issued, dice).await,
            985..988 => return self.apply_change(BulkChange::EndResource, &issued, dice).await,
            988..991 => return self.apply_change(BulkChange::EndIssuer, &issued, dice).await,
            991..995 => return self.apply_change(BulkChange::RemoveKey, &issued, dice).await,
            _ => return self.apply_change(BulkChange::BlockMainAgent, &issued, dice).await,
        };
        let told = self.send_admin_request_from(at, &wish, dice).await;
        self.introspect_after(&issued, told).await;
    }

    /// Asks for a change, and mostly asks again, wherever, if there was no answer.
    pub(crate) async fn send_admin_request(&self, wish: &AdminRequest, dice: &mut SeededRng) -> ChangeResult {
        self.send_admin_request_from(dice.below(REPLICAS), wish, dice).await
    }

    async fn send_admin_request_from(&self, at: usize, wish: &AdminRequest, dice: &mut SeededRng) -> ChangeResult {
        let mut told = self.recorder.send_admin_request(at, wish).await;
        // Of what is about many, it is worth more to know what came of it.
        let is_broad = !matches!(wish.target, Target::Token(_) | Target::Task(_));
        for _ in 0..MAX_RETRIES {
            if told != ChangeResult::Unknown || !is_broad && dice.below(2) == 0 {
                break;
            }
            told = self.recorder.send_admin_request(dice.below(REPLICAS), wish).await;
        }
        told
    }

    /// The same from two sides at once: who comes second may be told at once, but not sooner than it is so.
    async fn send_twice(&self, issued: &IssuedToken, dice: &mut SeededRng) {
        let (one, other) = (dice.below(REPLICAS), dice.below(REPLICAS));
        let acts = ["", "suspend", "complete"];
        if let act @ ("suspend" | "complete") = acts[dice.below(acts.len())] {
            let turn = async |at| {
                self.introspect_after(
                    issued,
                    self.recorder.send_admin_request(at, &AdminRequest::transition(&issued.token.task, act)).await,
                )
                .await
            };
            tokio::join!(turn(one), turn(other));
            return;
        }
        let end = Target::Token(issued.token.id.clone());
        let first = async { self.introspect_after(issued, self.recorder.revoke(one, end).await).await };
        let second = async { self.introspect_after(issued, self.recorder.revoke_by_client(other, issued).await).await };
        tokio::join!(first, second);
    }

    /// Holds a task back, and lets it go, mostly.
    async fn suspend_and_resume(&self, at: usize, issued: &IssuedToken, dice: &mut SeededRng) {
        let told =
            self.send_admin_request_from(at, &AdminRequest::transition(&issued.token.task, "suspend"), dice).await;
        self.introspect_after(issued, told).await;
        if dice.below(4) > 0 {
            let told = self.send_admin_request(&AdminRequest::transition(&issued.token.task, "resume"), dice).await;
            self.introspect_after(issued, told).await;
        }
    }

    /// Looks at some of the tokens that have this name, and for a change of nothing they have in common at any.
    pub(crate) async fn introspect_some(&self, target: &Target, told: ChangeResult) {
        let is_one = |issued: &IssuedToken| match target {
            Target::Tasks(selection) => selection.requester.as_ref().is_none_or(|r| *r == issued.token.requester),
            target => issued.token.revocation_targets().any(|name| name == *target),
        };
        let some = {
            let tokens = self.tokens.lock().unwrap();
            let some =
                tokens.iter().rev().map(|(_, issued)| issued).filter(|issued| is_one(issued)).take(CHECKED_TOKENS);
            some.cloned().collect::<Vec<_>>()
        };
        for issued in &some {
            self.introspect_after(issued, told).await;
        }
    }

    /// Some tasks that there are tokens of.
    pub(crate) fn some_tasks(&self, dice: &mut SeededRng) -> BTreeSet<String> {
        (0..CHECKED_TOKENS).filter_map(|_| self.random_token(dice)).map(|issued| issued.token.task).collect()
    }

    pub(crate) async fn introspect_after(&self, issued: &IssuedToken, told: ChangeResult) {
        if told.is_effective() {
            {
                let mut changed = self.changed.lock().unwrap();
                changed.push_front(issued.clone());
                changed.truncate(RECENT_TOKENS);
            }
            join_all((0..REPLICAS).map(|at| self.recorder.introspect(at, issued))).await;
        }
    }

    /// Takes back one token after the other, some after they were held back and let go, with nobody else there and nothing
    /// wrong.
    pub async fn revoke_all(&self) {
        for n in 0..FINAL_REVOCATIONS {
            let (at, elsewhere) = (n % REPLICAS, (n + 1) % REPLICAS);
            if let Some(issued) = self.recorder.open(at, "reader", "calm").await {
                self.introspect_after(&issued, ChangeResult::Done).await;
                for act in ["suspend", "resume"] {
                    if n % 4 == 0 {
                        let told = self
                            .recorder
                            .send_admin_request(elsewhere, &AdminRequest::transition(&issued.token.task, act))
                            .await;
                        self.introspect_after(&issued, told).await;
                    }
                }
                let told = self.recorder.revoke(elsewhere, Target::Token(issued.token.id.clone())).await;
                self.introspect_after(&issued, told).await;
            }
        }
    }

    /// Issues a token at one replica, and takes it back at another.
    pub async fn revoke_one(&self, at: usize, elsewhere: usize) {
        if let Some(issued) = self.recorder.open(at, "reader", "calm").await {
            let told = self.recorder.revoke(elsewhere, Target::Token(issued.token.id.clone())).await;
            self.introspect_after(&issued, told).await;
        }
    }

    /// Asks every replica about every token that is left.
    pub async fn introspect_all(&self) {
        let tokens = self.tokens.lock().unwrap().iter().map(|(_, issued)| issued.clone()).collect::<Vec<_>>();
        for issued in &tokens {
            self.introspect_after(issued, ChangeResult::Done).await;
        }
    }
}

fn random_requester(dice: &mut SeededRng) -> String {
    format!("alice-{}", dice.between(0, REQUESTER_COUNT))
}
