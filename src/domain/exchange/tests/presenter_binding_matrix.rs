//! The matrix of presenter bindings through the whole decision: two unrelated valid tokens are
//! never combined into a delegation.

use super::*;
use crate::domain::exchange::presenter_binding::BindingError;

const MATCHES: [AgentMatch; 3] = [AgentMatch::Absent, AgentMatch::ThisAgent, AgentMatch::OtherParty];

/// Spellings of `may_act`, and whether they name the planner.
fn may_act_cases() -> Vec<(Option<MayAct>, AgentMatch)> {
    let named = |iss: Option<&str>, sub: &str| Some(MayAct { iss: iss.map(str::to_owned), sub: sub.into() });
    vec![
        (None, AgentMatch::Absent),
        (named(None, "planner-app"), AgentMatch::ThisAgent),
        (named(None, "planner-web"), AgentMatch::ThisAgent),
        (named(Some(LOGIN), "planner-web"), AgentMatch::ThisAgent),
        (named(Some(US), "planner"), AgentMatch::ThisAgent),
        (named(None, "planner"), AgentMatch::OtherParty),
        (named(None, "planner-there"), AgentMatch::OtherParty),
        (named(None, "PLANNER-APP"), AgentMatch::OtherParty),
        (named(None, ""), AgentMatch::OtherParty),
        (named(Some(US), "planner-app"), AgentMatch::OtherParty),
        (named(Some(US), "reader"), AgentMatch::OtherParty),
        (named(Some(LOGIN), "planner"), AgentMatch::OtherParty),
        (named(Some("https://login.example.com/"), "planner-app"), AgentMatch::OtherParty),
        (named(Some(PARTNER), "planner-there"), AgentMatch::OtherParty),
        (named(Some(PARTNER), "planner-app"), AgentMatch::OtherParty),
    ]
}

/// Values of a claim, and whether they name the planner.
const AUDIENCE_CASES: [(&[&str], bool); 7] = [
    (&[US], false),
    (&["planner-app"], true),
    (&[US, "planner-web"], true),
    (&["reader-app"], false),
    (&["planner"], false),
    (&["planner-there"], false),
    (&["Planner-App", "planner-app/", " planner-app"], false),
];
const CLIENT_CASES: [(Option<&str>, bool); 7] = [
    (None, false),
    (Some("planner-app"), true),
    (Some("planner-web"), true),
    (Some("reader-app"), false),
    (Some("planner"), false),
    (Some("planner-there"), false),
    (Some(""), false),
];

#[test]
fn only_legal_evidence_combinations_are_issued() {
    let base = Case::with_user_token();
    let registry = registry(base.objects.clone());
    let (mut legal, mut illegal) = (0, 0);
    for (audience, audience_matches) in AUDIENCE_CASES {
        for (client, client_matches) in CLIENT_CASES {
            for (may_act, named) in may_act_cases() {
                for bits in 0..4 {
                    for actor in MATCHES {
                        let (grant, bound) = (bits & 1 != 0, bits & 2 != 0);
                        let mut user = alice();
                        user.audiences = audience.iter().map(|&aud| aud.to_owned()).collect();
                        user.client = client.map(str::to_owned);
                        user.may_act = may_act.clone();
                        user.is_key_bound = bound;
                        let got = decide_with(&registry, &base, &user, actor, grant);
                        // The rule in another form.
                        let no_other_party = actor != AgentMatch::OtherParty && named != AgentMatch::OtherParty;
                        let is_explicit = named == AgentMatch::ThisAgent || grant;
                        let is_implicit = (audience_matches || client_matches) && !bound;
                        let want = no_other_party && (is_explicit || is_implicit);
                        let cell = format!("{audience:?} {client:?} {may_act:?} {actor:?} grant {grant} bound {bound}");
                        assert_eq!(got.is_ok(), want, "{cell}: {got:?}");
                        if want {
                            legal += 1;
                        } else {
                            illegal += 1;
                            assert!(matches!(got, Err(Denial::PresenterNotBound(_))), "{cell}: {got:?}");
                        }
                        if bound && got.is_ok() {
                            assert!(matches!(got, Ok(Basis::MayAct | Basis::Grant)), "{cell}: {got:?}");
                        }
                    }
                }
            }
        }
    }
    assert_eq!(legal + illegal, 7 * 7 * 15 * 4 * 3);
    assert!(legal > 1_500 && illegal > 5_000, "{legal} {illegal}");
}

/// The client id of the agent at another issuer does not name it here.
#[test]
fn agent_name_at_one_issuer_is_not_accepted_at_another() {
    let base = Case::with_user_token();
    let registry = registry(base.objects.clone());
    let staff = serde_json::json!(["staff"]);
    for (client, want) in [
        ("planner-there", Ok(Basis::Client)),
        ("planner-app", Err(Denial::PresenterNotBound(BindingError::Unrelated))),
        ("planner-web", Err(Denial::PresenterNotBound(BindingError::Unrelated))),
    ] {
        let user = UserClaims { client: Some(client.into()), ..bob(&staff) };
        assert_eq!(decide_with(&registry, &base, &user, AgentMatch::Absent, false), want, "{client}");
    }
}

/// Decides with a registry that is built once, and returns the basis.
fn decide_with(
    registry: &Registry,
    base: &Case,
    user: &UserClaims,
    actor: AgentMatch,
    is_granted: bool,
) -> Result<Basis, Denial> {
    let grants = if is_granted { vec![grant(1, None)] } else { Vec::new() };
    let purpose = "quarterly report".parse().unwrap();
    let resource = registry.resource(&"files".parse().unwrap()).unwrap();
    let input = ExchangeInput {
        now: NOW,
        issuer: &US.parse().unwrap(),
        trust_domain: DOMAIN,
        registry,
        token_limits: &base.tokens,
        task_limits: &base.tasks,
        presenter: Presenter::Agent(registry.agent(&"planner".parse().unwrap()).unwrap()),
        subject: Evidence::User(user, registry.issuer(user.requester.issuer.as_str()).unwrap()),
        actor_match: actor,
        grants: &grants,
        requested_token: RequestedToken::Access(resource),
        scope: Some(&"files:read".parse().unwrap()),
        details: None,
        expires_in: None,
        task: TaskSelector::Unnamed { purpose: Some(&purpose), deadline: None },
    };
    decide(&input).map(|plan| plan.basis)
}
