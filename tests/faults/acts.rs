//! Changes that are about more than one token.

use std::time::Duration;

use crate::{
    caller::{FILES, IDP, Issued},
    crowd::Crowd,
    dice::Dice,
    ground::REPLICAS,
    history::{Selection, Target, Told, Verb},
    wishes::Wish,
};

/// An agent that gets nothing without a grant.
const BY_GRANT: &str = "stranger";
/// How often somebody who was shut out is let in again before that is given up.
const LET_IN: usize = 60;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    EndRequester,
    EndAgent,
    EndResource,
    EndIssuer,
    EndTasks,
    HoldTasks,
    ShutRequesterOut,
    ShutAgentOut,
    ShutMainAgentOut,
    Withdraw,
    RemoveKey,
}

impl Act {
    /// All but the same again, and those that end most of what there is last: they are taken from the end.
    pub const ALL: [Self; 8] = [
        Self::EndIssuer,
        Self::RemoveKey,
        Self::Withdraw,
        Self::ShutAgentOut,
        Self::ShutRequesterOut,
        Self::HoldTasks,
        Self::EndTasks,
        Self::EndRequester,
    ];
}

impl Crowd {
    /// Does it to whatever the token is of, and looks at every replica whether it is so.
    pub async fn act(&self, act: Act, issued: &Issued, dice: &mut Dice) {
        let token = &issued.token;
        let requester = || token.requester.clone();
        let wish = match act {
            Act::EndRequester => Wish::change(Verb::End, Target::Requester(requester())),
            Act::EndAgent => Wish::change(Verb::End, Target::Agent(main_agent(dice))),
            Act::EndResource => Wish::change(Verb::End, Target::Resource(FILES.to_owned())),
            Act::EndIssuer => Wish::change(Verb::End, Target::Issuer(IDP.to_owned())),
            Act::RemoveKey => Wish::remove_key(&token.key),
            Act::Withdraw => match self.grant_of(issued, dice).await {
                Some(grant) => Wish::withdraw(&grant),
                None => return,
            },
            Act::EndTasks => {
                let selection = match dice.below(10) {
                    0..5 => Selection { requester: Some(requester()), ..Selection::default() },
                    5..7 => Selection {
                        requester: Some(requester()),
                        agent: Some(main_agent(dice)),
                        ..Selection::default()
                    },
                    7 => Selection { agent: Some(BY_GRANT.to_owned()), ..Selection::default() },
                    _ => Selection { ids: self.some_tasks(dice), ..Selection::default() },
                };
                return self.choose(Verb::End, selection, dice).await;
            }
            Act::HoldTasks => {
                let selection = Selection { requester: Some(requester()), ..Selection::default() };
                self.choose(Verb::Suspend, selection.clone(), dice).await;
                return self.choose(Verb::Resume, selection, dice).await;
            }
            Act::ShutRequesterOut => return self.shut_out(Target::Requester(requester()), Verb::Disable, dice).await,
            Act::ShutAgentOut => return self.shut_out(Target::Agent(BY_GRANT.to_owned()), either(dice), dice).await,
            Act::ShutMainAgentOut => {
                return self.shut_out(Target::Agent(main_agent(dice)), either(dice), dice).await;
            }
        };
        let told = self.wish(&wish, dice).await;
        self.look_at_some(&wish.target, told).await;
    }

    /// Each of them, when nothing is wrong and so none of them can fail.
    pub async fn act_in_calm(&self, dice: &mut Dice) {
        for act in Act::ALL {
            let Some(issued) = self.caller.open(dice.below(REPLICAS), "planner", "calm").await else { continue };
            self.keep(Some(issued.clone()));
            self.act(act, &issued, dice).await;
            self.look(&issued, Told::Done).await;
        }
    }

    /// Many tasks, as a dry run shows them.
    async fn choose(&self, verb: Verb, selection: Selection, dice: &mut Dice) {
        if selection == Selection::default() {
            // That would be all tasks of everybody, and there is no such thing.
            return;
        }
        let at = dice.below(REPLICAS);
        let Some(wish) = self.caller.dry_run(at, verb, selection).await else { return };
        let told = self.wish(&wish, dice).await;
        self.look_at_some(&wish.target, told).await;
    }

    /// Shuts somebody out for a moment, and lets them in again: without them there would be less and less to see.
    async fn shut_out(&self, target: Target, verb: Verb, dice: &mut Dice) {
        let told = self.wish(&Wish::change(verb, target.clone()), dice).await;
        self.look_at_some(&target, told).await;
        tokio::time::sleep(Duration::from_millis(dice.between(0, 500))).await;
        let (undo, other) =
            if verb == Verb::Suspend { (Verb::Resume, Verb::Enable) } else { (Verb::Enable, Verb::Resume) };
        let mut is_in = 0;
        for n in 0..LET_IN {
            // Somebody else may have done more than we, or undone it.
            let verb = if n % 2 == 0 { undo } else { other };
            let told = self.wish(&Wish::change(verb, target.clone()), dice).await;
            self.look_at_some(&target, told).await;
            is_in = match told {
                Told::Done => 2,
                Told::Already => is_in + 1,
                Told::Refused | Told::Unknown => 0,
            };
            if is_in == 2 {
                return;
            }
        }
    }

    /// A token of an agent that needs a grant for it: where there is none, one is made.
    pub async fn open_by_grant(&self, at: usize, requester: &str, dice: &mut Dice) -> Option<Issued> {
        let mut issued = None;
        if dice.below(4) > 0 {
            issued = self.caller.open(at, BY_GRANT, requester).await;
        }
        if issued.is_none() && self.caller.grant(at, BY_GRANT, requester).await == Told::Done {
            issued = self.caller.open(at, BY_GRANT, requester).await;
        }
        self.keep(issued.clone());
        issued
    }

    /// The grant that a token rests on; if there is none, that of one that is opened.
    async fn grant_of(&self, issued: &Issued, dice: &mut Dice) -> Option<String> {
        if let Some(grant) = issued.token.grant.clone() {
            return Some(grant);
        }
        let requester = issued.token.requester.split_once(' ')?.1.to_owned();
        let at = dice.below(REPLICAS);
        self.caller.grant(at, BY_GRANT, &requester).await;
        self.open_by_grant(at, &requester, dice).await?.token.grant
    }
}

fn main_agent(dice: &mut Dice) -> String {
    ["planner", "reader"][dice.below(2)].to_owned()
}

fn either(dice: &mut Dice) -> Verb {
    [Verb::Suspend, Verb::Disable][dice.below(2)]
}
