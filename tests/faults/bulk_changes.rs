//! Changes that cover more than one token.

use std::time::Duration;

use crate::{
    admin_requests::AdminRequest,
    cluster::REPLICAS,
    history::{Action, ChangeResult, Target, TaskSelection},
    recorder::{FILES, IDP, IssuedToken},
    seeded_rng::SeededRng,
    workload::Workload,
};

/// An agent that gets no token without a grant.
const GRANT_AGENT: &str = "stranger";
/// Maximum number of requests that undo the block or the suspension of one party.
const MAX_UNBLOCK_ATTEMPTS: usize = 60;

/// A change that covers more than one token.
#[derive(Clone, Copy, Debug)]
pub enum BulkChange {
    EndRequester,
    EndAgent,
    EndResource,
    EndIssuer,
    EndTasks,
    SuspendTasks,
    BlockRequester,
    BlockAgent,
    BlockMainAgent,
    RevokeGrant,
    RemoveKey,
}

impl BulkChange {
    /// One change of each kind. The workload takes them from the end, so those that end most tokens
    /// come last.
    pub const ALL: [Self; 8] = [
        Self::EndIssuer,
        Self::RemoveKey,
        Self::RevokeGrant,
        Self::BlockAgent,
        Self::BlockRequester,
        Self::SuspendTasks,
        Self::EndTasks,
        Self::EndRequester,
    ];
}

impl Workload {
    /// Makes the change to a target that covers the token, and introspects covered tokens at every
    /// replica.
    pub async fn apply_change(&self, change: BulkChange, issued: &IssuedToken, rng: &mut SeededRng) {
        let token = &issued.token;
        let requester = || token.requester.clone();
        let request = match change {
            BulkChange::EndRequester => AdminRequest::change(Action::End, Target::Requester(requester())),
            BulkChange::EndAgent => AdminRequest::change(Action::End, Target::Agent(main_agent(rng))),
            BulkChange::EndResource => AdminRequest::change(Action::End, Target::Resource(FILES.to_owned())),
            BulkChange::EndIssuer => AdminRequest::change(Action::End, Target::Issuer(IDP.to_owned())),
            BulkChange::RemoveKey => AdminRequest::remove_key(&token.key),
            BulkChange::RevokeGrant => match self.create_grant_for(issued, rng).await {
                Some(grant) => AdminRequest::withdraw(&grant),
                None => return,
            },
            BulkChange::EndTasks => {
                let selection = match rng.below(10) {
                    0..5 => TaskSelection { requester: Some(requester()), ..TaskSelection::default() },
                    5..7 => TaskSelection {
                        requester: Some(requester()),
                        agent: Some(main_agent(rng)),
                        ..TaskSelection::default()
                    },
                    7 => TaskSelection { agent: Some(GRANT_AGENT.to_owned()), ..TaskSelection::default() },
                    _ => TaskSelection { ids: self.some_tasks(rng), ..TaskSelection::default() },
                };
                return self.change_selection(Action::End, selection, rng).await;
            }
            BulkChange::SuspendTasks => {
                let selection = TaskSelection { requester: Some(requester()), ..TaskSelection::default() };
                self.change_selection(Action::Suspend, selection.clone(), rng).await;
                return self.change_selection(Action::Resume, selection, rng).await;
            }
            BulkChange::BlockRequester => {
                return self.block(Target::Requester(requester()), Action::Block, rng).await;
            }
            BulkChange::BlockAgent => {
                return self.block(Target::Agent(GRANT_AGENT.to_owned()), random_verb(rng), rng).await;
            }
            BulkChange::BlockMainAgent => {
                return self.block(Target::Agent(main_agent(rng)), random_verb(rng), rng).await;
            }
        };
        let result = self.send_admin_request(&request, rng).await;
        self.introspect_some(&request.target, result).await;
    }

    /// Makes each change once after the faults, when none of them can fail.
    pub async fn apply_final_changes(&self, rng: &mut SeededRng) {
        for change in BulkChange::ALL {
            let Some(issued) = self.recorder.open(rng.below(REPLICAS), "planner", "bob").await else { continue };
            self.remember(Some(issued.clone()));
            self.apply_change(change, &issued, rng).await;
            self.introspect_after(&issued, ChangeResult::Done).await;
        }
    }

    /// Changes a selection of tasks, after a dry run.
    async fn change_selection(&self, verb: Action, selection: TaskSelection, rng: &mut SeededRng) {
        if selection == TaskSelection::default() {
            // An empty selection would cover all tasks of all requesters. The API has no such
            // selection.
            return;
        }
        let at = rng.below(REPLICAS);
        let Some(request) = self.recorder.dry_run(at, verb, selection).await else { return };
        let result = self.send_admin_request(&request, rng).await;
        self.introspect_some(&request.target, result).await;
    }

    /// Blocks or suspends a party for a moment, and undoes that: a party that stays blocked gets no
    /// more tokens to check.
    async fn block(&self, target: Target, verb: Action, rng: &mut SeededRng) {
        let result = self.send_admin_request(&AdminRequest::change(verb, target.clone()), rng).await;
        self.introspect_some(&target, result).await;
        tokio::time::sleep(Duration::from_millis(rng.between(0, 500))).await;
        let (undo, other) =
            if verb == Action::Suspend { (Action::Resume, Action::Unblock) } else { (Action::Unblock, Action::Resume) };
        let mut confirmations = 0;
        for n in 0..MAX_UNBLOCK_ATTEMPTS {
            // Another client may have blocked a suspended party, suspended a blocked one, or undone
            // either. So both verbs are sent in turn until one takes effect, or until both report
            // that they have nothing to undo.
            let verb = if n % 2 == 0 { undo } else { other };
            let result = self.send_admin_request(&AdminRequest::change(verb, target.clone()), rng).await;
            self.introspect_some(&target, result).await;
            confirmations = match result {
                ChangeResult::Done => 2,
                ChangeResult::Already => confirmations + 1,
                ChangeResult::Refused | ChangeResult::Unknown => 0,
            };
            if confirmations == 2 {
                return;
            }
        }
    }

    /// Opens a task for an agent that needs a grant. Creates a grant if the exchange fails, and at
    /// random without trying the exchange first.
    pub async fn open_by_grant(&self, at: usize, requester: &str, rng: &mut SeededRng) -> Option<IssuedToken> {
        let mut issued = None;
        if rng.below(4) > 0 {
            issued = self.recorder.open(at, GRANT_AGENT, requester).await;
        }
        if issued.is_none() && self.recorder.grant(at, GRANT_AGENT, requester).await == ChangeResult::Done {
            issued = self.recorder.open(at, GRANT_AGENT, requester).await;
        }
        self.remember(issued.clone());
        issued
    }

    /// Returns the grant of the token. For a token without one, creates a grant, opens a task by
    /// it, and returns the grant of that task.
    async fn create_grant_for(&self, issued: &IssuedToken, rng: &mut SeededRng) -> Option<String> {
        if let Some(grant) = issued.token.grant.clone() {
            return Some(grant);
        }
        let requester = issued.token.requester.split_once(' ')?.1.to_owned();
        let at = rng.below(REPLICAS);
        self.recorder.grant(at, GRANT_AGENT, &requester).await;
        self.open_by_grant(at, &requester, rng).await?.token.grant
    }
}

fn main_agent(rng: &mut SeededRng) -> String {
    ["planner", "reader"][rng.below(2)].to_owned()
}

fn random_verb(rng: &mut SeededRng) -> Action {
    [Action::Suspend, Action::Block][rng.below(2)]
}
