//! The splice matrix, through the whole decision: two honest tokens make a delegation in the legal cells and no others.

use super::*;
use crate::domain::splice::NotThisAgent;

const SAYS: [Says; 3] = [Says::Nothing, Says::ThisAgent, Says::SomebodyElse];

/// `may_act` as it can be written for the planner, and whether it is the planner that it means.
fn may_acts() -> Vec<(Option<MayAct>, Says)> {
    let named = |iss: Option<&str>, sub: &str| Some(MayAct { iss: iss.map(str::to_owned), sub: sub.into() });
    vec![
        (None, Says::Nothing),
        (named(None, "planner-app"), Says::ThisAgent),
        (named(None, "planner-web"), Says::ThisAgent),
        (named(Some(LOGIN), "planner-web"), Says::ThisAgent),
        (named(Some(US), "planner"), Says::ThisAgent),
        (named(None, "planner"), Says::SomebodyElse),
        (named(None, "planner-there"), Says::SomebodyElse),
        (named(None, "PLANNER-APP"), Says::SomebodyElse),
        (named(None, ""), Says::SomebodyElse),
        (named(Some(US), "planner-app"), Says::SomebodyElse),
        (named(Some(US), "reader"), Says::SomebodyElse),
        (named(Some(LOGIN), "planner"), Says::SomebodyElse),
        (named(Some("https://login.example.com/"), "planner-app"), Says::SomebodyElse),
        (named(Some(PARTNER), "planner-there"), Says::SomebodyElse),
        (named(Some(PARTNER), "planner-app"), Says::SomebodyElse),
    ]
}

/// What a claim of the user token says, and whether that is the planner.
const AUDIENCES: [(&[&str], bool); 7] = [
    (&[US], false),
    (&["planner-app"], true),
    (&[US, "planner-web"], true),
    (&["reader-app"], false),
    (&["planner"], false),
    (&["planner-there"], false),
    (&["Planner-App", "planner-app/", " planner-app"], false),
];
const CLIENTS: [(Option<&str>, bool); 7] = [
    (None, false),
    (Some("planner-app"), true),
    (Some("planner-web"), true),
    (Some("reader-app"), false),
    (Some("planner"), false),
    (Some("planner-there"), false),
    (Some(""), false),
];

#[test]
fn only_the_legal_cells_issue() {
    let base = Case::user();
    let registry = registry(base.objects.clone());
    let (mut legal, mut illegal) = (0, 0);
    for (audience, to_it) in AUDIENCES {
        for (client, of_it) in CLIENTS {
            for (may_act, named) in may_acts() {
                for bits in 0..4 {
                    for actor in SAYS {
                        let (grant, bound) = (bits & 1 != 0, bits & 2 != 0);
                        let mut user = alice();
                        user.audiences = audience.iter().map(|&aud| aud.to_owned()).collect();
                        user.client = client.map(str::to_owned);
                        user.may_act = may_act.clone();
                        user.bound = bound;
                        let got = decide_with(&registry, &base, &user, actor, grant);
                        // Said the other way round than the rule says it.
                        let nobody_else = actor != Says::SomebodyElse && named != Says::SomebodyElse;
                        let said_so = named == Says::ThisAgent || grant;
                        let points_here = (to_it || of_it) && !bound;
                        let want = nobody_else && (said_so || points_here);
                        let cell = format!("{audience:?} {client:?} {may_act:?} {actor:?} grant {grant} bound {bound}");
                        assert_eq!(got.is_ok(), want, "{cell}: {got:?}");
                        if want {
                            legal += 1;
                        } else {
                            illegal += 1;
                            assert!(matches!(got, Err(Denial::Splice(_))), "{cell}: {got:?}");
                        }
                        if bound && got.is_ok() {
                            assert!(matches!(got, Ok("may_act" | "grant")), "{cell}: {got:?}");
                        }
                    }
                }
            }
        }
    }
    assert_eq!(legal + illegal, 7 * 7 * 15 * 4 * 3);
    assert!(legal > 1_500 && illegal > 5_000, "{legal} {illegal}");
}

/// The same with a name that the agent has at another issuer: it says nothing here.
#[test]
fn a_name_at_one_issuer_is_none_at_another() {
    let base = Case::user();
    let registry = registry(base.objects.clone());
    let staff = serde_json::json!(["staff"]);
    for (client, want) in [
        ("planner-there", Ok("client")),
        ("planner-app", Err(Denial::Splice(NotThisAgent::Unrelated))),
        ("planner-web", Err(Denial::Splice(NotThisAgent::Unrelated))),
    ] {
        let user = UserClaims { client: Some(client.into()), ..bob(&staff) };
        assert_eq!(decide_with(&registry, &base, &user, Says::Nothing, false), want, "{client}");
    }
}

/// Decides with a registry that is built once, and says by what right.
fn decide_with(
    registry: &Registry,
    base: &Case,
    user: &UserClaims,
    actor: Says,
    is_granted: bool,
) -> Result<&'static str, Denial> {
    let grants = if is_granted { vec![grant(1, None)] } else { Vec::new() };
    let purpose = "quarterly report".parse().unwrap();
    let resource = registry.resource(&"files".parse().unwrap()).unwrap();
    let ask = Ask {
        now: NOW,
        issuer: &US.parse().unwrap(),
        trust_domain: DOMAIN,
        registry,
        tokens: &base.tokens,
        tasks: &base.tasks,
        presenter: Presenter::Agent(registry.agent(&"planner".parse().unwrap()).unwrap()),
        subject: Evidence::User(user, registry.issuer(user.requester.issuer.as_str()).unwrap()),
        actor,
        grants: &grants,
        output: Output::Access(resource),
        scope: Some(&"files:read".parse().unwrap()),
        details: None,
        expires_in: None,
        task: TaskWanted::Unnamed { purpose: Some(&purpose), deadline: None },
    };
    decide(&ask).map(|plan| plan.basis)
}
