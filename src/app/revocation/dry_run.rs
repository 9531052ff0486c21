//! Dry runs of admin actions. The log entries that an action would write are applied to a separate
//! index, and the standing of every live token is evaluated on it, by the rule that also decides
//! about tokens. Nothing is changed.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    app::{AdminAction, ApiCaller, Error, RequestContext, RequestError, Revocation, RevocationTarget, Service},
    domain::{
        id::{ClientId, TaskId},
        revocation::{Index, LogAction, LogEntry, LogPosition, NewEntry, Standing, Target},
        settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
        time::Timestamp,
    },
    ports::{ErrorChain, ListError, PageRequest, TokenFilter, TokenRecord},
};

/// How many tokens and tasks a dry run shows.
const SAMPLE_SIZE: usize = 10;
/// How many live tokens are evaluated.
const MAX_SCANNED_TOKENS: usize = 100_000;
/// How many token records are read at a time.
const PAGE_SIZE: u32 = 1000;

/// The expected effect of an action.
#[derive(Debug, Default)]
pub struct DryRun {
    /// How many tokens would be ended, suspended or resumed.
    pub token_count: u64,
    /// The tasks of these tokens, and the selected tasks.
    tasks: BTreeSet<TaskId>,
    /// The agents that act with these tokens.
    agents: BTreeSet<ClientId>,
    /// Some of these tokens, newest first.
    pub sample: Vec<TokenRecord>,
    /// Whether all live tokens were evaluated. Otherwise the counts are lower bounds.
    pub is_complete: bool,
    /// The confirmation of a selection, and its expiry.
    pub confirmation: Option<(String, Timestamp)>,
}

impl DryRun {
    /// Returns how many tasks are affected.
    #[must_use]
    pub fn task_count(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// Returns how many agents are affected.
    #[must_use]
    pub fn agent_count(&self) -> u64 {
        self.agents.len() as u64
    }

    /// Returns some of the affected tasks.
    #[must_use]
    pub fn sample_tasks(&self) -> Vec<TaskId> {
        self.tasks.iter().rev().take(SAMPLE_SIZE).copied().collect()
    }

    pub(super) fn add_tasks(&mut self, tasks: impl Iterator<Item = TaskId>) {
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
    /// Returns what the action would change now.
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
                let text = "supported only for `revoke`, `suspend` and `block`";
                return Err(RequestError::InvalidParameter("dry_run", text).into());
            }
        };
        let plan = self.plan_revocation(admin, revocation, cx).await?;
        let entries = plan.log_entries.into_iter().filter(|entry| entry.verb == verb);
        let targets = entries.map(|entry| (verb, entry.target)).collect::<Vec<_>>();
        let filter = match &revocation.target {
            RevocationTarget::Task(id) => TokenFilter { task: Some(*id), ..TokenFilter::default() },
            RevocationTarget::Requester(requester) => {
                let requester = (requester.issuer.clone(), requester.subject.to_string());
                TokenFilter { requester: Some(requester), ..TokenFilter::default() }
            }
            RevocationTarget::Token(_)
            | RevocationTarget::Agent(_)
            | RevocationTarget::AllAgents
            | RevocationTarget::Resource(_)
            | RevocationTarget::ResourceAt(_)
            | RevocationTarget::Issuer(_) => TokenFilter::default(),
        };
        let mut dry_run = self.find_affected_tokens(admin, &targets, filter, cx).await?;
        if let RevocationTarget::Task(id) = &revocation.target {
            dry_run.add_tasks(std::iter::once(*id));
        }
        Ok(dry_run)
    }

    /// Returns the live tokens whose standing these entries would change now.
    pub(super) async fn find_affected_tokens(
        &self,
        admin: &ApiCaller,
        targets: &[(LogAction, Target)],
        filter: TokenFilter,
        cx: &RequestContext,
    ) -> Result<DryRun, Error> {
        let snapshot = admin.client().snapshot();
        let index = simulate(snapshot.seq, targets, cx.now);
        let resumes = targets.iter().any(|(verb, _)| *verb == LogAction::Resume);
        let oldest = cx.now.saturating_sub(TOKEN_LIFETIME_CAP).saturating_sub(MAX_CLOCK_SKEW);
        let filter = TokenFilter { unexpired_at: Some(cx.now), issued_from: Some(oldest), ..filter };
        let mut page = PageRequest { cursor: None, limit: PAGE_SIZE };
        let (mut dry_run, mut scanned) = (DryRun::default(), 0_usize);
        loop {
            // Lists of clients must not delay the dry run of a revocation.
            let tokens = match self.reserved_store().list_tokens(&filter, &page).await {
                Ok(tokens) => tokens,
                // A record that was changed outside the program must not keep an admin from a
                // revocation.
                Err(ListError::Outage(outage)) if outage.tampering().is_some() => {
                    tracing::error!(error = %ErrorChain(&outage), "the dry run is incomplete");
                    dry_run.is_complete = false;
                    return Ok(dry_run);
                }
                Err(error) => return Err(error.into()),
            };
            scanned = scanned.saturating_add(tokens.items.len());
            for token in tokens.items {
                let keys = token.revocation_keys();
                let (current, simulated) = (snapshot.standing(&keys), index.standing(&keys));
                // For a resume, the simulated index suspends the targets, so it shows which tokens
                // they cover.
                let is_affected = if resumes {
                    current == Standing::Suspended && simulated != Standing::Live
                } else {
                    simulated > current
                };
                if is_affected {
                    dry_run.accumulate(token);
                }
            }
            page.cursor = tokens.next;
            dry_run.is_complete = page.cursor.is_none();
            if dry_run.is_complete || scanned >= MAX_SCANNED_TOKENS {
                return Ok(dry_run);
            }
        }
    }
}

/// Builds an index that holds only the entries that would be written next.
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
