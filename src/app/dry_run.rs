//! What an act of an admin would change, by the very rule that decides about tokens: the entries that it would write are
//! applied to an index of their own, and every live token's record is judged by that. Nothing happens.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    app::{ApiCaller, BadRequest, Cx, Failure, Revocation, Service, Wanted, What},
    domain::{
        id::{ClientId, TaskId},
        limits::{CLOCKS_MAY_DIFFER, TOKEN_LIFETIME_CAP},
        revocation::{Index, LogEntry, NewEntry, Seq, Standing, Target, Verb},
        time::Timestamp,
    },
    ports::{Page, TokenFilter, TokenRecord},
};

/// How many of the things are shown.
const SAMPLE: usize = 10;
/// How many tokens are looked at.
const LOOKED_AT: usize = 100_000;
const PAGE: u32 = 1000;

/// What would change.
#[derive(Debug, Default)]
pub struct DryRun {
    /// How many tokens would end, be held back, or work again.
    pub tokens: u64,
    /// The tasks that they are of, and those that were selected.
    tasks: BTreeSet<TaskId>,
    /// The agents that act in them.
    agents: BTreeSet<ClientId>,
    /// Some of the tokens, newest first.
    pub sample: Vec<TokenRecord>,
    /// Whether all live tokens were looked at; otherwise the numbers are the least that it would be.
    pub is_complete: bool,
    /// What a selection is confirmed with, and until when.
    pub confirmation: Option<(String, Timestamp)>,
}

impl DryRun {
    /// How many tasks.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// How many agents.
    #[must_use]
    pub fn agents(&self) -> u64 {
        self.agents.len() as u64
    }

    /// Some of the tasks.
    #[must_use]
    pub fn some_tasks(&self) -> Vec<TaskId> {
        self.tasks.iter().rev().take(SAMPLE).copied().collect()
    }

    pub(super) fn add_tasks(&mut self, tasks: impl Iterator<Item = TaskId>) {
        self.tasks.extend(tasks);
    }

    fn add(&mut self, token: TokenRecord) {
        self.tokens = self.tokens.saturating_add(1);
        self.tasks.extend(token.task);
        self.agents.extend(token.agents.iter().cloned());
        if token.task.is_none() {
            self.agents.insert(token.client.clone());
        }
        if self.sample.len() < SAMPLE {
            self.sample.push(token);
        }
    }
}

impl Service {
    /// What taking something back would do now.
    pub async fn dry_run(&self, admin: &ApiCaller, wanted: &Revocation, cx: &Cx) -> Result<DryRun, Failure> {
        let verb = match wanted.what {
            What::Revoke | What::Disable => Verb::Revoke,
            What::Suspend => Verb::Suspend,
            What::Resume | What::Enable => {
                return Err(BadRequest::Invalid("dry_run", "is for what ends something or holds it back").into());
            }
        };
        let planned = self.plan_revocation(admin, wanted, cx).await?;
        let targets = planned.log.into_iter().filter(|entry| entry.verb == verb).map(|entry| (verb, entry.target));
        let among = match &wanted.target {
            Wanted::Task(id) => TokenFilter { task: Some(*id), ..TokenFilter::default() },
            Wanted::Requester(requester) => {
                let requester = (requester.issuer.clone(), requester.subject.to_string());
                TokenFilter { requester: Some(requester), ..TokenFilter::default() }
            }
            Wanted::Token(_) | Wanted::Agent(_) | Wanted::Resource(_) | Wanted::ResourceAt(_) | Wanted::Issuer(_) => {
                TokenFilter::default()
            }
        };
        let mut found = self.would_change(admin, &targets.collect::<Vec<_>>(), among, cx).await?;
        if let Wanted::Task(id) = &wanted.target {
            found.add_tasks(std::iter::once(*id));
        }
        Ok(found)
    }

    /// The live tokens whose standing these entries would change, as of now.
    pub(super) async fn would_change(
        &self,
        admin: &ApiCaller,
        targets: &[(Verb, Target)],
        among: TokenFilter,
        cx: &Cx,
    ) -> Result<DryRun, Failure> {
        let view = admin.client().view();
        let index = hypothetical(view.seq, targets, cx.now);
        let is_resumed = targets.iter().any(|(verb, _)| *verb == Verb::Resume);
        let oldest = cx.now.before(TOKEN_LIFETIME_CAP).before(CLOCKS_MAY_DIFFER);
        let among = TokenFilter { alive_at: Some(cx.now), issued_from: Some(oldest), ..among };
        let mut page = Page { after: None, limit: PAGE };
        let (mut found, mut looked_at) = (DryRun::default(), 0_usize);
        loop {
            let got = self.store().tokens(&among, &page).await?;
            looked_at = looked_at.saturating_add(got.items.len());
            for token in got.items {
                let names = token.names();
                let (now, then) = (view.standing(&names), index.standing(&names));
                // Of what is resumed, the hypothetical index says which: it holds back what would be let go.
                let changes =
                    if is_resumed { now == Standing::Suspended && then != Standing::Live } else { then > now };
                if changes {
                    found.add(token);
                }
            }
            page.after = got.next;
            found.is_complete = page.after.is_none();
            if found.is_complete || looked_at >= LOOKED_AT {
                return Ok(found);
            }
        }
    }
}

/// An index that holds what would be written next; nothing else.
fn hypothetical(head: Seq, targets: &[(Verb, Target)], now: Timestamp) -> Index {
    let mut index = Index::after(head);
    for (seq, (verb, target)) in (head.number().saturating_add(1)..).zip(targets) {
        let verb = if *verb == Verb::Resume { Verb::Suspend } else { *verb };
        let entry = NewEntry {
            verb,
            target: target.clone(),
            reason: String::new(),
            by: String::new(),
            at: now,
            forget_after: Timestamp::MAX,
        };
        index.apply(&LogEntry { seq: Seq::new(seq), entry }, Duration::ZERO);
    }
    index
}
