//! Presenter binding: every combination of evidence over HTTP. A token is issued only to a
//! presenter that the evidence names.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{ACCESS_TOKEN, IDP, JWT, Server, decode_claims, form, form_with_changes};

on_both_stores!(
    only_bound_presenters_are_issued_tokens,
    key_or_other_delegation_does_not_bind_presenter,
    issued_token_is_exchanged_only_by_its_holder
);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Actor {
    Absent,
    OwnAssertion,
    OwnApiToken,
    OtherApiToken,
    OtherAssertion,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum MayAct {
    Absent,
    This,
    ThisByOwnIssuer,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Grant {
    None,
    Valid,
    Expired,
}

/// Subject audience × client × `may_act` × actor token × grant. Grants belong to a requester, so
/// each grant state has a requester of its own.
async fn only_bound_presenters_are_issued_tokens(server: Server) {
    let until = |seconds: i64| {
        let at = time::OffsetDateTime::from_unix_timestamp(Server::now() + seconds).unwrap();
        at.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    for (subject, seconds) in [("granted", 600), ("once-granted", 5)] {
        let grant = json!({"issuer": IDP, "subject": subject, "agent": "planner", "until": until(seconds)});
        let (status, body) = server.admin(Method::POST, "/grants", Some(grant)).await;
        assert_eq!(status, 201, "{body}");
    }
    // The grant of the requester `once-granted` expires.
    let has_expired = || async {
        let (_, list) = server.admin(Method::GET, "/grants", None).await;
        let grant = list["items"].as_array().unwrap().iter().find(|g| g["requester"]["subject"] == "once-granted");
        let until = grant.unwrap()["until"].as_str().unwrap().to_owned();
        let format = &time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(&until, format).unwrap().unix_timestamp() <= Server::now()
    };
    crate::server::wait_until("the grant has expired", has_expired).await;

    let own_api = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    let other_api = server.issue_token("reader", &form(&[("grant_type", "client_credentials")])).await;
    let (mut allowed, mut cells) = (0, 0);
    for audience_ok in [true, false] {
        for this_client in [true, false] {
            for may_act in [MayAct::Absent, MayAct::This, MayAct::ThisByOwnIssuer, MayAct::Other] {
                for actor in [
                    Actor::Absent,
                    Actor::OwnAssertion,
                    Actor::OwnApiToken,
                    Actor::OtherApiToken,
                    Actor::OtherAssertion,
                ] {
                    for grant in [Grant::None, Grant::Valid, Grant::Expired] {
                        let cell = (audience_ok, this_client, may_act, actor, grant);
                        let subject = server.user_token(json!({
                            "aud": if audience_ok { server.issuer.as_str() } else { "https://elsewhere.example" },
                            "client_id": if this_client { "planner-client" } else { "another-client" },
                            "may_act": match may_act {
                                MayAct::Absent => Value::Null,
                                MayAct::This => json!({"sub": "planner-client"}),
                                MayAct::ThisByOwnIssuer => json!({"iss": server.issuer, "sub": "planner"}),
                                MayAct::Other => json!({"iss": server.issuer, "sub": "reader"}),
                            },
                            "sub": match grant {
                                Grant::None => "alice",
                                Grant::Valid => "granted",
                                Grant::Expired => "once-granted",
                            },
                        }));
                        let assertion = server.assertion(json!({}));
                        let other = server.idp.sign(
                            "JWT",
                            &json!({"iss": "reader", "sub": "reader", "aud": server.issuer,
                            "exp": Server::now() + 60, "jti": "other-1"}),
                        );
                        let (token, declared_type) = match actor {
                            Actor::Absent => ("", ""),
                            Actor::OwnAssertion => (&assertion[..], JWT),
                            Actor::OwnApiToken => (&own_api[..], ACCESS_TOKEN),
                            Actor::OtherApiToken => (&other_api[..], ACCESS_TOKEN),
                            Actor::OtherAssertion => (&other[..], JWT),
                        };
                        let form = server.exchange_form(&subject);
                        let form = match actor {
                            Actor::Absent => form,
                            _ => {
                                form_with_changes(&form, &[("actor_token", token), ("actor_token_type", declared_type)])
                            }
                        };
                        let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
                        let bound = !matches!(actor, Actor::OtherApiToken | Actor::OtherAssertion);
                        let names_agent = matches!(may_act, MayAct::This | MayAct::ThisByOwnIssuer);
                        let is_named =
                            names_agent || (may_act == MayAct::Absent && (this_client || grant == Grant::Valid));
                        cells += 1;
                        if audience_ok && bound && is_named {
                            allowed += 1;
                            assert_eq!(status, 200, "{cell:?} {body}");
                            let claims = decode_claims(body["access_token"].as_str().unwrap());
                            assert_eq!(
                                claims["act"],
                                json!({"iss": server.issuer, "sub": "planner", "sub_profile": "ai_agent"})
                            );
                        } else {
                            let want = if audience_ok { "actor_unauthorized" } else { "invalid_request" };
                            assert_eq!((status.as_u16(), &body["error"]), (400, &json!(want)), "{cell:?} {body}");
                        }
                    }
                }
            }
        }
    }
    assert_eq!((cells, allowed), (240, 48));
    server.stop().await;
}

async fn key_or_other_delegation_does_not_bind_presenter(server: Server) {
    let try_with = async |changes: Value| {
        let form = server.exchange_form(&server.user_token(changes));
        let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    };
    let unauthorized = (400, "actor_unauthorized".to_owned());
    let bound = json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}});
    assert_eq!(try_with(bound.clone()).await, unauthorized, "a token bound to a key needs `may_act` or a grant");
    let mut permitted = bound;
    permitted["may_act"] = json!({"sub": "planner-client"});
    assert_eq!(try_with(permitted).await.0, 200);
    for (name, may_act) in [
        ("another namespace", json!({"iss": "https://elsewhere.example", "sub": "planner-client"})),
        ("an Errand client id without iss", json!({"sub": "planner"})),
        ("a provider client id with Errand's iss", json!({"iss": server.issuer, "sub": "planner-client"})),
        ("another case", json!({"sub": "Planner-Client"})),
    ] {
        assert_eq!(try_with(json!({"may_act": may_act})).await, unauthorized, "{name}");
    }
    // Another agent presents a captured token.
    for agent in ["reader", "writer", "stranger"] {
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_as(agent, "/oauth2/token", &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("actor_unauthorized")), "{agent}");
    }
    for other in ["files", "ops"] {
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_as(other, "/oauth2/token", &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("unauthorized_client")), "{other} {body}");
    }
    server.stop().await;
}

async fn issued_token_is_exchanged_only_by_its_holder(server: Server) {
    let access = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&access, "reader")).await;
    for (agent, token, want) in [
        ("planner", &access, 200),
        ("reader", &access, 400),
        ("writer", &access, 400),
        ("stranger", &access, 400),
        ("reader", &hand_over, 200),
        ("planner", &hand_over, 400),
        ("writer", &hand_over, 400),
        ("stranger", &hand_over, 400),
    ] {
        let form = form_with_changes(&server.exchange_form(token), &[("purpose", "")]);
        let (status, body) = server.request_token_as(agent, &form).await;
        assert_eq!(status, want, "{agent} {body}");
        if want == 400 {
            assert_eq!(body["error"], "actor_unauthorized", "{agent} {body}");
        }
    }
    // Delegation follows the edges of the registry only, and never forms a cycle.
    for next in ["writer", "stranger", "planner"] {
        let (status, body) = server.post_as_planner("/oauth2/token", &server.delegation_form(&access, next)).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("actor_unauthorized")), "{next} {body}");
    }
    server.stop().await;
}
