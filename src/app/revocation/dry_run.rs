//! What an act of an admin would change, by the very rule that decides about tokens: the entries that it would write are
//! applied to an index of their own, and every live token's record is judged by that. Nothing happens.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    app::{AdminAction, ApiCaller, Error, RequestContext, RequestError, Revocation, RevocationTarget, Service},
    domain::{
        id::{ClientId, TaskId},
        revocation::{Index, LogAction, LogEntry, LogPosition, NewEntry, Standing, Target},
        settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
        time::Timestamp,
    },
    ports::{PageRequest, TokenFilter, TokenRecord},
};

/// How many of the things are shown.
const SAMPLE_SIZE: usize = 10;
/// How many tokens are looked at.
const MAX_SCANNED_TOKENS: usize = 100_000;
const PAGE_SIZE: u32 = 1000;

/// What would change.
#[derive(Debug, Default)]
pub struct DryRun {
    /// How many tokens would end, be held back, or work again.
    pub token_count: u64,
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
    pub fn task_count(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// How many agents.
    #[must_use]
    pub fn agent_count(&self) -> u64 {
        self.agents.len() as u64
    }

    /// Some of the tasks.
    #[must_use]
    pub fn sample_tasks(&self) -> Vec<TaskId> {
        self.tasks.iter().rev().take(SAMPLE_SIZE).copied().collect()
    }

    pub(in crate::app) fn add_tasks(&mut self, tasks: impl Iterator<Item = TaskId>) {
        self.tasks.extend(tasks);
    }

    fn accumulate(&mut self, token: TokenRecord) {
        self.token_count = self.token_count.saturating_add(1);
        self.tasks.extend(token.task);
        self.agents.extend(token.agents.iter().cloned());
        if token.task.is_none() {
            self.agents.insert(token.client.clone());
        }
        if self.sample.len() < SAMPLE_SIZE {
            self.sample.push(token);
        }
    }
}

impl Service {
    /// What taking something back would do now.
    pub async fn dry_run(
        &self,
        admin: &ApiCaller,
        revocation: &Revocation,
        cx: &RequestContext,
    ) -> Result<DryRun, Error> {
        let verb = match revocation.action {
            AdminAction::Revoke | AdminAction::Block => LogAction::Revoke,
            AdminAction::Suspend => LogAction::Suspend,
            AdminAction::Resume | AdminAction::Unblock => {
                return Err(
                    RequestError::InvalidParameter("dry_run", "is for what ends something or holds it back").into()
                );
            }
        };
        let planned = self.plan_revocation(admin, revocation, cx).await?;
        let targets = planned.log.into_iter().filter(|entry| entry.verb == verb).map(|entry| (verb, entry.target));
        let filter = match &revocation.target {
            RevocationTarget::Task(id) => TokenFilter { task: Some(*id), ..TokenFilter::default() },
            RevocationTarget::Requester(requester) => {
                let requester = (requester.issuer.clone(), requester.subject.to_string());
                TokenFilter { requester: Some(requester), ..TokenFilter::default() }
            }
            RevocationTarget::Token(_)
            | RevocationTarget::Agent(_)
            | RevocationTarget::Resource(_)
            | RevocationTarget::ResourceAt(_)
            | RevocationTarget::Issuer(_) => TokenFilter::default(),
        };
        let mut dry_run = self.find_affected_tokens(admin, &targets.collect::<Vec<_>>(), filter, cx).await?;
        if let RevocationTarget::Task(id) = &revocation.target {
            dry_run.add_tasks(std::iter::once(*id));
        }
        Ok(dry_run)
    }

    /// The live tokens whose standing these entries would change, as of now.
    pub(in crate::app) async fn find_affected_tokens(
        &self,
        admin: &ApiCaller,
        targets: &[(LogAction, Target)],
        filter: TokenFilter,
        cx: &RequestContext,
    ) -> Result<DryRun, Error> {
        let snapshot = admin.client().snapshot();
        let index = simulate(snapshot.seq, targets, cx.now);
        let is_resumed = targets.iter().any(|(verb, _)| *verb == LogAction::Resume);
        let oldest = cx.now.saturating_sub(TOKEN_LIFETIME_CAP).saturating_sub(MAX_CLOCK_SKEW);
        let filter = TokenFilter { unexpired_at: Some(cx.now), issued_from: Some(oldest), ..filter };
        let mut page = PageRequest { cursor: None, limit: PAGE_SIZE };
        let (mut dry_run, mut looked_at) = (DryRun::default(), 0_usize);
        loop {
            let got = self.store().list_tokens(&filter, &page).await?;
            looked_at = looked_at.saturating_add(got.items.len());
            for token in got.items {
                let names = token.revocation_keys();
                let (now, then) = (snapshot.standing(&names), index.standing(&names));
                // Of what is resumed, the hypothetical index says which: it holds back what would be let go.
                let changes =
                    if is_resumed { now == Standing::Suspended && then != Standing::Live } else { then > now };
                if changes {
                    dry_run.accumulate(token);
                }
            }
            page.cursor = got.next;
            dry_run.is_complete = page.cursor.is_none();
            if dry_run.is_complete || looked_at >= MAX_SCANNED_TOKENS {
                return Ok(dry_run);
            }
        }
    }
}

/// An index that holds what would be written next; nothing else.
fn simulate(head: LogPosition, targets: &[(LogAction, Target)], now: Timestamp) -> Index {
    let mut index = Index::starting_after(head);
    for (seq, (verb, target)) in (head.number().saturating_add(1)..).zip(targets) {
        let verb = if *verb == LogAction::Resume { LogAction::Suspend } else { *verb };
        let entry = NewEntry {
            verb,
            target: target.clone(),
            reason: String::new(),
            by: String::new(),
            at: now,
            forget_after: Timestamp::MAX,
        };
        index.apply(&LogEntry { seq: LogPosition::new(seq), entry }, Duration::ZERO);
    }
    index
}
