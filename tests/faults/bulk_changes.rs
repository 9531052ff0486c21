//! Changes that are about more than one token.

use std::time::Duration;

use crate::{
    admin_requests::AdminRequest,
    cluster::REPLICAS,
    history::{Action, ChangeResult, Target, TaskSelection},
    recorder::{FILES, IDP, IssuedToken},
    seeded_rng::SeededRng,
    workload::Workload,
};

/// An agent that gets nothing without a grant.
const GRANT_AGENT: &str = "stranger";
/// How often somebody who was shut out is let in again before that is given up.
const MAX_UNBLOCK_ATTEMPTS: usize = 60;

/// One of them.
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
    WithdrawGrant,
    RemoveKey,
}

impl BulkChange {
    /// All but the same again, and those that end most of what there is last: they are taken from the end.
    pub const ALL: [Self; 8] = [
        Self::EndIssuer,
        Self::RemoveKey,
        Self::WithdrawGrant,
        Self::BlockAgent,
        Self::BlockRequester,
        Self::SuspendTasks,
        Self::EndTasks,
        Self::EndRequester,
    ];
}

impl Workload {
    /// Does it to whatever the token is of, and looks at every replica whether it is so.
    pub async fn apply_change(&self, act: BulkChange, issued: &IssuedToken, dice: &mut SeededRng) {
        let token = &issued.token;
        let requester = || token.requester.clone();
        let wish = match act {
            BulkChange::EndRequester => AdminRequest::change(Action::End, Target::Requester(requester())),
            BulkChange::EndAgent => AdminRequest::change(Action::End, Target::Agent(main_agent(dice))),
            BulkChange::EndResource => AdminRequest::change(Action::End, Target::Resource(FILES.to_owned())),
            BulkChange::EndIssuer => AdminRequest::change(Action::End, Target::Issuer(IDP.to_owned())),
            BulkChange::RemoveKey => AdminRequest::remove_key(&token.key),
            BulkChange::WithdrawGrant => match self.create_grant_for(issued, dice).await {
                Some(grant) => AdminRequest::withdraw(&grant),
                None => return,
            },
            BulkChange::EndTasks => {
                let selection = match dice.below(10) {
                    0..5 => TaskSelection { requester: Some(requester()), ..TaskSelection::default() },
                    5..7 => TaskSelection {
                        requester: Some(requester()),
                        agent: Some(main_agent(dice)),
                        ..TaskSelection::default()
                    },
                    7 => TaskSelection { agent: Some(GRANT_AGENT.to_owned()), ..TaskSelection::default() },
                    _ => TaskSelection { ids: self.some_tasks(dice), ..TaskSelection::default() },
                };
                return self.change_selection(Action::End, selection, dice).await;
            }
            BulkChange::SuspendTasks => {
                let selection = TaskSelection { requester: Some(requester()), ..TaskSelection::default() };
                self.change_selection(Action::Suspend, selection.clone(), dice).await;
                return self.change_selection(Action::Resume, selection, dice).await;
            }
            BulkChange::BlockRequester => {
                return self.block(Target::Requester(requester()), Action::Block, dice).await;
            }
            BulkChange::BlockAgent => {
                return self.block(Target::Agent(GRANT_AGENT.to_owned()), random_verb(dice), dice).await;
            }
            BulkChange::BlockMainAgent => {
                return self.block(Target::Agent(main_agent(dice)), random_verb(dice), dice).await;
            }
        };
        let told = self.send_admin_request(&wish, dice).await;
        self.introspect_some(&wish.target, told).await;
    }

    /// Each of them, when nothing is wrong and so none of them can fail.
    pub async fn apply_final_changes(&self, dice: &mut SeededRng) {
        for act in BulkChange::ALL {
            let Some(issued) = self.recorder.open(dice.below(REPLICAS), "planner", "calm").await else { continue };
            self.remember(Some(issued.clone()));
            self.apply_change(act, &issued, dice).await;
            self.introspect_after(&issued, ChangeResult::Done).await;
        }
    }

    /// Many tasks, as a dry run shows them.
    async fn change_selection(&self, verb: Action, selection: TaskSelection, dice: &mut SeededRng) {
        if selection == TaskSelection::default() {
            // That would be all tasks of everybody, and there is no such thing.
            return;
        }
        let at = dice.below(REPLICAS);
        let Some(wish) = self.recorder.dry_run(at, verb, selection).await else { return };
        let told = self.send_admin_request(&wish, dice).await;
        self.introspect_some(&wish.target, told).await;
    }

    /// Shuts somebody out for a moment, and lets them in again: without them there would be less and less to see.
    async fn block(&self, target: Target, verb: Action, dice: &mut SeededRng) {
        let told = self.send_admin_request(&AdminRequest::change(verb, target.clone()), dice).await;
        self.introspect_some(&target, told).await;
        tokio::time::sleep(Duration::from_millis(dice.between(0, 500))).await;
        let (undo, other) =
            if verb == Action::Suspend { (Action::Resume, Action::Unblock) } else { (Action::Unblock, Action::Resume) };
        let mut is_in = 0;
        for n in 0..MAX_UNBLOCK_ATTEMPTS {
            // Somebody else may have done more than we, or undone it.
            let verb = if n % 2 == 0 { undo } else { other };
            let told = self.send_admin_request(&AdminRequest::change(verb, target.clone()), dice).await;
            self.introspect_some(&target, told).await;
            is_in = match told {
                ChangeResult::Done => 2,
                ChangeResult::Already => is_in + 1,
                ChangeResult::Refused | ChangeResult::Unknown => 0,
            };
            if is_in == 2 {
                return;
            }
        }
    }

    /// A token of an agent that needs a grant for it: where there is none, one is made.
    pub async fn open_by_grant(&self, at: usize, requester: &str, dice: &mut SeededRng) -> Option<IssuedToken> {
        let mut issued = None;
        if dice.below(4) > 0 {
            issued = self.recorder.open(at, GRANT_AGENT, requester).await;
        }
        if issued.is_none() && self.recorder.grant(at, GRANT_AGENT, requester).await == ChangeResult::Done {
            issued = self.recorder.open(at, GRANT_AGENT, requester).await;
        }
        self.remember(issued.clone());
        issued
    }

    /// The grant that a token rests on; if there is none, that of one that is opened.
    async fn create_grant_for(&self, issued: &IssuedToken, dice: &mut SeededRng) -> Option<String> {
        if let Some(grant) = issued.token.grant.clone() {
            return Some(grant);
        }
        let requester = issued.token.requester.split_once(' ')?.1.to_owned();
        let at = dice.below(REPLICAS);
        self.recorder.grant(at, GRANT_AGENT, &requester).await;
        self.open_by_grant(at, &requester, dice).await?.token.grant
    }
}

fn main_agent(dice: &mut SeededRng) -> String {
    ["planner", "reader"][dice.below(2)].to_owned()
}

fn random_verb(dice: &mut SeededRng) -> Action {
    [Action::Suspend, Action::Block][dice.below(2)]
}
