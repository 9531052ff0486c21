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
    acts::Act,
    caller::{Caller, Issued},
    dice::Dice,
    ground::REPLICAS,
    history::{Target, Told, Verb},
    wishes::Wish,
};

/// How many clients there are.
const CLIENTS: usize = 32;
/// How many of them may be at one replica: one that is paused must not hold all of them.
const AT_ONE: usize = 10;
/// How many tokens are asked about.
const TOKENS: usize = 200;
/// How many of them are young.
const YOUNG: usize = 20;
/// How old they get. They live for five minutes.
const AGE: Duration = Duration::from_mins(2);
/// How many are taken back in calm weather.
const CALM: usize = 60;
/// How many requesters there are.
const REQUESTERS: u64 = 12;
/// How many tokens are looked at after a change of more than one.
const SOME: usize = 6;
/// How often what got no answer is sent again.
const AGAIN: usize = 5;

/// All clients.
pub struct Crowd {
    pub(crate) caller: Arc<Caller>,
    tokens: Mutex<VecDeque<(Duration, Issued)>>,
    /// What was changed last: that is worth more questions than one.
    changed: Mutex<VecDeque<Issued>>,
    /// What each of them does at least once, whatever the dice say.
    pub(crate) first: Mutex<Vec<Act>>,
    places: [Semaphore; REPLICAS],
    is_over: AtomicBool,
}

impl Crowd {
    pub fn new(caller: Arc<Caller>) -> Arc<Self> {
        let places = std::array::from_fn(|_| Semaphore::new(AT_ONE));
        Arc::new(Self {
            caller,
            tokens: Mutex::default(),
            changed: Mutex::default(),
            first: Mutex::new(Act::ALL.to_vec()),
            places,
            is_over: AtomicBool::new(false),
        })
    }

    /// Lets them come. They go on until they are sent home.
    pub fn come(self: &Arc<Self>, dice: &mut Dice) -> JoinSet<()> {
        (0..CLIENTS).map(|_| Arc::clone(self).one(dice.split())).collect()
    }

    /// Sends them home: each ends what it is at.
    pub fn go_home(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    async fn one(self: Arc<Self>, mut dice: Dice) {
        while !self.is_over.load(Ordering::SeqCst) {
            let at = dice.below(REPLICAS);
            let Ok(_place) = self.places[at].try_acquire() else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            match dice.below(100) {
                0..25 => self.open(at, &mut dice).await,
                25..40 => self.derive(at, &mut dice).await,
                40..43 => self.use_twice(&mut dice).await,
                43..85 => self.ask(at, &mut dice).await,
                _ => self.change(at, &mut dice).await,
            }
            // Who is down need not be asked as fast as one can.
            let long = if self.caller.is_silent(at) { 400 } else { 30 };
            tokio::time::sleep(Duration::from_millis(dice.between(0, long))).await;
        }
    }

    /// Any token, and half of the time a young one: of the old ones most have ended.
    fn any(&self, dice: &mut Dice) -> Option<Issued> {
        let tokens = self.tokens.lock().unwrap();
        let among = if dice.below(2) == 0 { tokens.len() } else { tokens.len().min(YOUNG) };
        tokens.iter().rev().nth(dice.below(among)).map(|(_, issued)| issued.clone())
    }

    pub(crate) fn keep(&self, issued: Option<Issued>) {
        let now = self.caller.now();
        let mut tokens = self.tokens.lock().unwrap();
        tokens.extend(issued.map(|issued| (now, issued)));
        while tokens.len() > TOKENS || tokens.front().is_some_and(|(had, _)| *had + AGE < now) {
            tokens.pop_front();
        }
    }

    async fn open(&self, at: usize, dice: &mut Dice) {
        let (agent, requester) = match dice.below(10) {
            0..3 => ("planner", requester(dice)),
            3..5 => return self.open_by_grant(at, &requester(dice), dice).await.map_or((), drop),
            _ => ("reader", requester(dice)),
        };
        self.keep(self.caller.open(at, agent, &requester).await);
    }

    async fn derive(&self, at: usize, dice: &mut Dice) {
        let Some(from) = self.any(dice) else { return };
        let hands_over = from.token.agents.iter().all(|agent| agent == "planner");
        let child = if !hands_over || dice.below(2) == 0 {
            self.caller.derive(at, &from).await
        } else {
            self.caller.hand_over(at, &from).await
        };
        self.keep(child);
    }

    /// One assertion, at all replicas at once.
    async fn use_twice(&self, dice: &mut Dice) {
        let (assertion, requester) = (self.caller.assertion(), requester(dice));
        let tries = (0..REPLICAS).map(|at| self.caller.open_by(at, &requester, assertion.clone()));
        for issued in join_all(tries).await {
            self.keep(issued);
        }
    }

    async fn ask(&self, at: usize, dice: &mut Dice) {
        let changed = {
            let changed = self.changed.lock().unwrap();
            changed.get(dice.below(2 * changed.len())).cloned()
        };
        if let Some(issued) = changed.or_else(|| self.any(dice)) {
            self.caller.introspect(at, &issued).await;
        }
    }

    /// Changes something about a token, and if that was acknowledged, looks at every replica whether it is so.
    async fn change(&self, at: usize, dice: &mut Dice) {
        let Some(issued) = self.any(dice) else { return };
        let first = self.first.lock().unwrap().pop();
        if let Some(act) = first {
            return self.act(act, &issued, dice).await;
        }
        let token = &issued.token;
        let wish = match dice.below(1000) {
            0..205 => Wish::change(Verb::End, Target::Token(token.id.clone())),
            205..385 => {
                let told = self.caller.give_back(at, &issued).await;
                return self.look(&issued, told).await;
            }
            385..455 => return self.twice(&issued, dice).await,
            455..525 => Wish::change(Verb::End, Target::Task(token.task.clone())),
            525..575 => Wish::turn(&token.task, "complete"),
            575..615 => Wish::turn(&token.task, "fail"),
            615..825 => return self.hold(at, &issued, dice).await,
            825..855 => return self.act(Act::EndRequester, &issued, dice).await,
            855..885 => return self.act(Act::EndTasks, &issued, dice).await,
            885..900 => return self.act(Act::HoldTasks, &issued, dice).await,
            900..925 => return self.act(Act::ShutRequesterOut, &issued, dice).await,
            925..940 => return self.act(Act::ShutAgentOut, &issued, dice).await,
            940..980 => return self.act(Act::Withdraw, &issued, dice).await,
            // These end most of what there is.
            980..985 => return self.act(Act::EndAgent, &issued, dice).await,
            985..988 => return self.act(Act::EndResource, &issued, dice).await,
            988..991 => return self.act(Act::EndIssuer, &issued, dice).await,
            991..995 => return self.act(Act::RemoveKey, &issued, dice).await,
            _ => return self.act(Act::ShutMainAgentOut, &issued, dice).await,
        };
        let told = self.wish_from(at, &wish, dice).await;
        self.look(&issued, told).await;
    }

    /// Asks for a change, and mostly asks again, wherever, if there was no answer.
    pub(crate) async fn wish(&self, wish: &Wish, dice: &mut Dice) -> Told {
        self.wish_from(dice.below(REPLICAS), wish, dice).await
    }

    async fn wish_from(&self, at: usize, wish: &Wish, dice: &mut Dice) -> Told {
        let mut told = self.caller.wish(at, wish).await;
        // Of what is about many, it is worth more to know what came of it.
        let is_broad = !matches!(wish.target, Target::Token(_) | Target::Task(_));
        for _ in 0..AGAIN {
            if told != Told::Unknown || !is_broad && dice.below(2) == 0 {
                break;
            }
            told = self.caller.wish(dice.below(REPLICAS), wish).await;
        }
        told
    }

    /// The same from two sides at once: who comes second may be told at once, but not sooner than it is so.
    async fn twice(&self, issued: &Issued, dice: &mut Dice) {
        let (one, other) = (dice.below(REPLICAS), dice.below(REPLICAS));
        let acts = ["", "suspend", "complete"];
        if let act @ ("suspend" | "complete") = acts[dice.below(acts.len())] {
            let turn =
                async |at| self.look(issued, self.caller.wish(at, &Wish::turn(&issued.token.task, act)).await).await;
            tokio::join!(turn(one), turn(other));
            return;
        }
        let end = Target::Token(issued.token.id.clone());
        let first = async { self.look(issued, self.caller.revoke(one, end).await).await };
        let second = async { self.look(issued, self.caller.give_back(other, issued).await).await };
        tokio::join!(first, second);
    }

    /// Holds a task back, and lets it go, mostly.
    async fn hold(&self, at: usize, issued: &Issued, dice: &mut Dice) {
        let told = self.wish_from(at, &Wish::turn(&issued.token.task, "suspend"), dice).await;
        self.look(issued, told).await;
        if dice.below(4) > 0 {
            let told = self.wish(&Wish::turn(&issued.token.task, "resume"), dice).await;
            self.look(issued, told).await;
        }
    }

    /// Looks at some of the tokens that have this name, and for a change of nothing they have in common at any.
    pub(crate) async fn look_at_some(&self, target: &Target, told: Told) {
        let is_one = |issued: &Issued| match target {
            Target::Tasks(selection) => selection.requester.as_ref().is_none_or(|r| *r == issued.token.requester),
            target => issued.token.names().any(|name| name == *target),
        };
        let some = {
            let tokens = self.tokens.lock().unwrap();
            let some = tokens.iter().rev().map(|(_, issued)| issued).filter(|issued| is_one(issued)).take(SOME);
            some.cloned().collect::<Vec<_>>()
        };
        for issued in &some {
            self.look(issued, told).await;
        }
    }

    /// Some tasks that there are tokens of.
    pub(crate) fn some_tasks(&self, dice: &mut Dice) -> BTreeSet<String> {
        (0..SOME).filter_map(|_| self.any(dice)).map(|issued| issued.token.task).collect()
    }

    pub(crate) async fn look(&self, issued: &Issued, told: Told) {
        if told.is_so() {
            {
                let mut changed = self.changed.lock().unwrap();
                changed.push_front(issued.clone());
                changed.truncate(YOUNG);
            }
            join_all((0..REPLICAS).map(|at| self.caller.introspect(at, issued))).await;
        }
    }

    /// Takes back one token after the other, some after they were held back and let go, with nobody else there and nothing
    /// wrong.
    pub async fn take_back_in_calm(&self) {
        for n in 0..CALM {
            let (at, elsewhere) = (n % REPLICAS, (n + 1) % REPLICAS);
            if let Some(issued) = self.caller.open(at, "reader", "calm").await {
                self.look(&issued, Told::Done).await;
                for act in ["suspend", "resume"] {
                    if n % 4 == 0 {
                        let told = self.caller.wish(elsewhere, &Wish::turn(&issued.token.task, act)).await;
                        self.look(&issued, told).await;
                    }
                }
                let told = self.caller.revoke(elsewhere, Target::Token(issued.token.id.clone())).await;
                self.look(&issued, told).await;
            }
        }
    }

    /// Issues a token at one replica, and takes it back at another.
    pub async fn take_back_one(&self, at: usize, elsewhere: usize) {
        if let Some(issued) = self.caller.open(at, "reader", "calm").await {
            let told = self.caller.revoke(elsewhere, Target::Token(issued.token.id.clone())).await;
            self.look(&issued, told).await;
        }
    }

    /// Asks every replica about every token that is left.
    pub async fn look_at_all(&self) {
        let tokens = self.tokens.lock().unwrap().iter().map(|(_, issued)| issued.clone()).collect::<Vec<_>>();
        for issued in &tokens {
            self.look(issued, Told::Done).await;
        }
    }
}

fn requester(dice: &mut Dice) -> String {
    format!("alice-{}", dice.between(0, REQUESTERS))
}
