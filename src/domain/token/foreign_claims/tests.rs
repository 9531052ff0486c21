//! Malformed and hostile variants of each claim of a foreign token.

mod assertions;

use serde_json::{Value, json};

use super::*;
use crate::domain::encoding::strict_json::parse;

const NOW: i64 = 1_795_200_000;
const US: &str = "https://sts.example.com";
const LOGIN: &str = "https://login.example.com";

fn issuer(more: &Value) -> TrustedIssuer {
    let mut issuer = json!({"issuer": LOGIN, "keys": "discovery", "audiences": [US, "api://errand"],
        "algorithms": ["RS256"], "token_types": ["access_token"]});
    issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(issuer).unwrap()
}

fn token() -> Value {
    json!({"iss": LOGIN, "aud": US, "sub": "alice", "iat": NOW - 60, "exp": NOW + 600, "client_id": "planner-app",
        "jti": "x", "scope": "files:read"})
}

/// Checks an access token with these members replaced; `null` removes one.
fn check(changes: &Value) -> Result<UserClaims, ClaimError> {
    check_as(changes, &issuer(&json!({})), SubjectTokenType::AccessToken)
}

fn check_as(changes: &Value, issuer: &TrustedIssuer, kind: SubjectTokenType) -> Result<UserClaims, ClaimError> {
    let names = ["planner-app".to_owned(), "planner-web".to_owned()];
    let rules = UserTokenRules {
        issuer,
        kind,
        agent_client_ids: &names,
        foreign_prefixes: vec!["partner:", "", "corp/"],
        leeway: Lifetime::seconds(30),
    };
    check_user_claims(with_changes(token(), changes), &rules, Timestamp::from_unix(NOW))
}

fn with_changes(claims: Value, changes: &Value) -> Map<String, Value> {
    let Value::Object(mut claims) = claims else { panic!() };
    for (name, value) in changes.as_object().unwrap() {
        // The text "null" is replaced by JSON null, which differs from an absent member.
        match value {
            Value::Null => claims.remove(name),
            Value::String(text) if text == "null" => claims.insert(name.clone(), Value::Null),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
    claims
}

#[test]
fn valid_user_token_yields_all_claims() {
    let claims = check(&json!({"auth_time": NOW - 100, "acr": "loa2", "amr": ["pwd", "hwk"], "groups": ["staff"],
        "may_act": {"sub": "planner-app"}, "cnf": {"jkt": "x"},
        "act": {"iss": LOGIN, "sub": "web", "sub_profile": "web_app", "act": {"iss": LOGIN, "sub": "edge"}}}))
    .unwrap();
    assert_eq!((claims.requester.issuer.as_str(), claims.requester.subject.as_str()), (LOGIN, "alice"));
    assert_eq!((claims.audiences, claims.client.as_deref()), (vec![US.to_owned()], Some("planner-app")));
    assert_eq!((claims.expires, claims.is_key_bound), (Timestamp::from_unix(NOW + 600), true));
    assert_eq!(claims.may_act, Some(MayAct { iss: None, sub: "planner-app".into() }));
    assert_eq!(claims.scope, Some("files:read".parse().unwrap()));
    let chain = claims.chain.unwrap().actors().map(|h| (h.sub.clone(), h.sub_profile.clone())).collect::<Vec<_>>();
    assert_eq!(chain, [("web".to_owned(), Some("web_app".to_owned())), ("edge".to_owned(), None)]);
    let amr = Some(vec!["pwd".to_owned(), "hwk".to_owned()]);
    let auth_time = Some(Timestamp::from_unix(NOW - 100));
    assert_eq!(claims.auth_context, AuthenticationContext { auth_time, acr: Some("loa2".into()), amr });
    assert_eq!(claims.raw_claims["groups"], json!(["staff"]));
    let plain = check(&json!({})).unwrap();
    assert_eq!(
        (plain.is_key_bound, plain.may_act, plain.chain, plain.auth_context),
        (false, None, None, AuthenticationContext::default())
    );
    assert!(check(&json!({"cnf": "null"})).unwrap().is_key_bound, "whatever is in it");
}

type Row = (Value, Result<(), ClaimError>);

fn assert_rows(rows: impl IntoIterator<Item = Row>, check: impl Fn(&Value) -> Result<UserClaims, ClaimError>) {
    for (changes, want) in rows {
        assert_eq!(check(&changes).map(|_| ()), want, "{changes}");
    }
}

#[test]
fn invalid_token_times_are_rejected() {
    let bad = |name| Err(ClaimError::Malformed(name));
    let mut rows = vec![
        (json!({"exp": null}), Err(ClaimError::Missing("exp"))),
        (json!({"iat": null}), Err(ClaimError::Missing("iat"))),
        (json!({"exp": NOW + 1}), Ok(())),
        // A token is expired in the second of its expiry; the leeway does not apply here.
        (json!({"exp": NOW}), Err(ClaimError::Expired)),
        (json!({"exp": NOW - 1}), Err(ClaimError::Expired)),
        (json!({"exp": NOW - 29}), Err(ClaimError::Expired)),
        (json!({"exp": NOW - 31}), Err(ClaimError::Expired)),
        (json!({"exp": 0}), Err(ClaimError::Expired)),
        (json!({"exp": 253_402_300_799_i64}), Ok(())),
        (json!({"iat": NOW}), Ok(())),
        (json!({"iat": NOW + 30}), Ok(())),
        (json!({"iat": NOW + 31}), Err(ClaimError::NotYetValid)),
        (json!({"nbf": NOW + 30}), Ok(())),
        (json!({"nbf": NOW + 31}), Err(ClaimError::NotYetValid)),
        (json!({"nbf": 0}), Ok(())),
        (json!({"auth_time": NOW + 1_000_000}), Ok(())),
    ];
    for name in ["exp", "iat", "nbf", "auth_time"] {
        for value in [
            json!((NOW + 60).to_string()),
            json!("2026-11-20T00:00:00Z"),
            json!("null"),
            json!(1.795_200_6e9),
            json!(1_795_200_060.5),
            json!(1e300),
            json!(-1),
            json!(-0.0),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(253_402_300_800_i64),
            json!(true),
            json!([NOW + 60]),
            json!({"$date": NOW + 60}),
        ] {
            rows.push((json!({ name: value }), bad(name)));
        }
    }
    assert_rows(rows, check);
    // Malformed numbers and duplicate members are already rejected by the JSON parser.
    for text in [
        r#"{"exp":1e400}"#,
        r#"{"exp":NaN}"#,
        r#"{"exp":01795200600}"#,
        r#"{"exp":1795200600,"exp":1795200601}"#,
        r#"{"iss":"a","\u0069ss":"b"}"#,
    ] {
        parse(text.as_bytes(), 8).unwrap_err();
    }
    // A number that exceeds 64 bits is parsed as a float, and rejected as one.
    let Value::Object(huge) = parse(br#"{"exp":99999999999999999999999}"#, 8).unwrap() else { panic!() };
    assert_eq!(read_date(&huge, "exp"), Err(ClaimError::Malformed("exp")));
}

#[test]
fn wrong_issuer_or_audience_is_rejected() {
    let wrong = Err(ClaimError::InvalidAudience);
    let bad = Err(ClaimError::Malformed("aud"));
    let rows = [
        (json!({"iss": null}), Err(ClaimError::Missing("iss"))),
        (json!({"iss": "https://login.example.com/"}), Err(ClaimError::Malformed("iss"))),
        (json!({"iss": "https://LOGIN.example.com"}), Err(ClaimError::Malformed("iss"))),
        (json!({"iss": [LOGIN]}), Err(ClaimError::Malformed("iss"))),
        (json!({"aud": null}), Err(ClaimError::Missing("aud"))),
        (json!({"aud": "null"}), bad),
        (json!({"aud": 1}), bad),
        (json!({"aud": {US: 1}}), bad),
        (json!({"aud": []}), bad),
        (json!({"aud": ""}), bad),
        (json!({"aud": [US, ""]}), bad),
        (json!({"aud": [US, 1]}), bad),
        (json!({"aud": [[US]]}), bad),
        (json!({"aud": [US]}), Ok(())),
        (json!({"aud": ["api://errand"]}), Ok(())),
        (json!({"aud": [US, "https://other.example.com"]}), wrong),
        (json!({"aud": [US, "api://errand"]}), wrong),
        (json!({"aud": "https://STS.example.com"}), wrong),
        (json!({"aud": "https://sts.example.com/"}), wrong),
        (json!({"aud": "https://sts.example.com:443"}), wrong),
        (json!({"aud": " https://sts.example.com"}), wrong),
        (json!({"aud": "http://sts.example.com"}), wrong),
        (json!({"aud": "https://sts.example.com.evil.example"}), wrong),
        (json!({"aud": "https://sts.example.com https://other.example.com"}), wrong),
        (json!({"aud": "*"}), wrong),
        // An access token is for this server; a name of the agent is not accepted.
        (json!({"aud": "planner-app"}), wrong),
    ];
    assert_rows(rows, check);
    let open = issuer(&json!({"other_audiences": "accept"}));
    let access = |changes: &Value| check_as(changes, &open, SubjectTokenType::AccessToken);
    let rows = [
        (json!({"aud": [US, "https://other.example.com"]}), Ok(())),
        (json!({"aud": ["https://other.example.com"]}), wrong),
        (json!({"aud": "planner-app"}), wrong),
    ];
    assert_rows(rows, access);
    // An ID token is for the agent, never for this server.
    let id = |changes: &Value| check_as(changes, &issuer(&json!({})), SubjectTokenType::IdToken);
    let rows = [
        (json!({"aud": "planner-app", "client_id": null, "jti": null}), Ok(())),
        (json!({"aud": ["planner-web"]}), Ok(())),
        (json!({"aud": "reader-app"}), wrong),
        (json!({"aud": "Planner-App"}), wrong),
        (json!({"aud": ["planner-app", "reader-app"]}), wrong),
        (json!({"aud": US}), wrong),
    ];
    assert_rows(rows, id);
    let jwt = |changes: &Value| check_as(changes, &issuer(&json!({})), SubjectTokenType::Jwt);
    assert_rows([(json!({"client_id": null, "jti": null}), Ok(())), (json!({"aud": "planner-app"}), wrong)], jwt);
}

#[test]
fn id_token_is_not_an_access_token() {
    let user = |kind| move |changes: &Value| check_as(changes, &issuer(&json!({})), kind);
    for claim in ["nonce", "at_hash", "c_hash"] {
        for kind in [SubjectTokenType::AccessToken, SubjectTokenType::Jwt] {
            let marked = Err(ClaimError::IdTokenClaim(claim));
            let rows = [
                (json!({claim: "x"}), marked),
                (json!({claim: ""}), marked),
                (json!({claim: 1}), marked),
                (json!({claim: "null"}), Ok(())),
            ];
            assert_rows(rows, user(kind));
        }
        assert_rows([(json!({"aud": "planner-app", claim: "x"}), Ok(()))], user(SubjectTokenType::IdToken));
    }
}

#[test]
fn invalid_subject_is_rejected() {
    let bad = Err(ClaimError::Malformed("sub"));
    let foreign = Err(ClaimError::ForeignSubjectPrefix);
    let rows = [
        (json!({"sub": null}), Err(ClaimError::Missing("sub"))),
        (json!({"sub": ""}), bad),
        (json!({"sub": 7}), bad),
        (json!({"sub": ["alice"]}), bad),
        (json!({"sub": "ali\u{0}ce"}), bad),
        (json!({"sub": "alice\n"}), bad),
        (json!({"sub": "ali\u{85}ce"}), bad),
        (json!({"sub": "x".repeat(255)}), Ok(())),
        (json!({"sub": "x".repeat(256)}), bad),
        (json!({"sub": "é".repeat(128)}), bad),
        (json!({"sub": "auth0|5f7c8ec7"}), Ok(())),
        (json!({"sub": "partner:bob"}), foreign),
        (json!({"sub": "partner:"}), foreign),
        (json!({"sub": "corp/bob"}), foreign),
        (json!({"sub": "partner"}), Ok(())),
        (json!({"sub": "Partner:bob"}), Ok(())),
        (json!({"sub": "a partner:bob"}), Ok(())),
    ];
    assert_rows(rows, check);
    let prefixed = issuer(&json!({"subject_prefix": "home:"}));
    let check_prefixed = |changes: &Value| check_as(changes, &prefixed, SubjectTokenType::AccessToken);
    assert_eq!(check_prefixed(&json!({})).unwrap().requester.subject.as_str(), "home:alice");
    // With a prefix of its own, no subject can be confused with another issuer's.
    assert_eq!(check_prefixed(&json!({"sub": "partner:bob"})).unwrap().requester.subject.as_str(), "home:partner:bob");
    assert_rows(
        [(json!({"sub": "x".repeat(250)}), Ok(())), (json!({"sub": "x".repeat(251)}), bad), (json!({"sub": ""}), bad)],
        check_prefixed,
    );
    // A prefix that passed the registry's rules by mistake is still detected in the complete name.
    let near = issuer(&json!({"subject_prefix": "part"}));
    assert_rows([(json!({"sub": "ner:bob"}), foreign)], |changes| {
        check_as(changes, &near, SubjectTokenType::AccessToken)
    });
}

#[test]
fn invalid_client_or_token_id_is_rejected() {
    let rows = [
        (json!({"client_id": null}), Err(ClaimError::Missing("client_id"))),
        (json!({"client_id": 7}), Err(ClaimError::Malformed("client_id"))),
        (json!({"client_id": "null"}), Err(ClaimError::Malformed("client_id"))),
        (json!({"client_id": "a\u{0}b"}), Err(ClaimError::Malformed("client_id"))),
        (json!({"client_id": "x".repeat(1025)}), Err(ClaimError::Malformed("client_id"))),
        (json!({"jti": null}), Err(ClaimError::Missing("jti"))),
        (json!({"jti": 7}), Err(ClaimError::Malformed("jti"))),
        (json!({"events": {}}), Err(ClaimError::SecurityEvent)),
        (json!({"jti": "x".repeat(1025)}), Err(ClaimError::Malformed("jti"))),
    ];
    assert_rows(rows, check);
    let plain = |changes: &Value| check_as(changes, &issuer(&json!({})), SubjectTokenType::Jwt);
    for (changes, want) in [
        (json!({"azp": "reader-app"}), Some("planner-app")),
        (json!({"client_id": null, "azp": "reader-app"}), Some("reader-app")),
        (json!({"client_id": null}), None),
        (json!({"client_id": null, "appid": "planner-app"}), None),
    ] {
        assert_eq!(plain(&changes).unwrap().client.as_deref(), want, "{changes}");
    }
    assert_rows([(json!({"client_id": null, "azp": 7}), Err(ClaimError::Malformed("client_id")))], plain);
    let named = issuer(&json!({"claims": {"client": ["appid"], "scope": "scp"}}));
    let claims = check_as(&json!({"appid": "x", "scp": ["a", "b"]}), &named, SubjectTokenType::Jwt).unwrap();
    assert_eq!((claims.client.as_deref(), claims.scope), (Some("x"), Some("a b".parse().unwrap())));
}

#[test]
fn may_act_and_act_are_read_strictly() {
    let may = Err(ClaimError::Malformed("may_act"));
    let act = Err(ClaimError::Malformed("act"));
    let nested = |depth: usize| {
        (0..depth).fold(Value::Null, |inner, n| {
            let mut actor = json!({"iss": LOGIN, "sub": format!("h{n}")});
            if !inner.is_null() {
                actor["act"] = inner;
            }
            actor
        })
    };
    let rows = [
        (json!({"may_act": "planner-app"}), may),
        (json!({"may_act": "null"}), may),
        (json!({"may_act": [{"sub": "planner-app"}]}), may),
        (json!({"may_act": {}}), may),
        (json!({"may_act": {"sub": 7}}), may),
        (json!({"may_act": {"sub": "a\u{0}"}}), may),
        (json!({"may_act": {"sub": "x", "iss": 7}}), may),
        (json!({"may_act": {"sub": "x", "iss": null}}), may),
        (json!({"may_act": {"iss": LOGIN}}), may),
        (json!({"may_act": {"iss": LOGIN, "sub": "x"}}), Ok(())),
        (json!({"act": "web"}), act),
        (json!({"act": "null"}), act),
        (json!({"act": []}), act),
        (json!({"act": {}}), act),
        (json!({"act": {"sub": "web"}}), act),
        (json!({"act": {"iss": LOGIN}}), act),
        (json!({"act": {"iss": "", "sub": "web"}}), act),
        (json!({"act": {"iss": LOGIN, "sub": ""}}), act),
        (json!({"act": {"iss": LOGIN, "sub": 7}}), act),
        (json!({"act": {"iss": LOGIN, "sub": "web", "sub_profile": 7}}), act),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"sub": "edge"}}}), act),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": null}}), act),
        // An actor appears once in a chain. The same name from another issuer is another actor.
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"iss": LOGIN, "sub": "web"}}}), act),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"iss": US, "sub": "web"}}}), Ok(())),
        (json!({"act": nested(16)}), Ok(())),
        (json!({"act": nested(17)}), act),
    ];
    assert_rows(rows, check);
    // The innermost actor is last, and the order is kept.
    let subs = check(&json!({"act": nested(3)})).unwrap().chain.unwrap();
    assert_eq!(subs.actors().map(|actor| actor.sub.as_str()).collect::<Vec<_>>(), ["h2", "h1", "h0"]);
}

#[test]
fn scope_and_auth_context_are_read_strictly() {
    let bad = Err(ClaimError::Malformed("scope"));
    let rows = [
        (json!({"scope": "a \"b\""}), bad),
        (json!({"scope": "a\\b"}), bad),
        (json!({"scope": "a  b"}), bad),
        (json!({"scope": " a"}), bad),
        (json!({"scope": "a\tb"}), bad),
        (json!({"scope": 7}), bad),
        (json!({"scope": {"a": true}}), bad),
        (json!({"scope": ["a", 7]}), bad),
        (json!({"scope": ["a b"]}), bad),
        (json!({"scope": ["a\""]}), bad),
        (json!({"scope": [""]}), bad),
        (json!({"acr": 2}), Err(ClaimError::Malformed("acr"))),
        (json!({"acr": "a\u{7}"}), Err(ClaimError::Malformed("acr"))),
        (json!({"amr": "pwd"}), Err(ClaimError::Malformed("amr"))),
        (json!({"amr": ["pwd", 7]}), Err(ClaimError::Malformed("amr"))),
        (json!({"amr": ["x".repeat(65)]}), Err(ClaimError::Malformed("amr"))),
        (json!({"amr": vec!["x"; 17]}), Err(ClaimError::Malformed("amr"))),
        (json!({"amr": vec!["x"; 16]}), Ok(())),
    ];
    assert_rows(rows, check);
    let none = crate::domain::scope::ScopeSet::default();
    for (scope, want) in [
        (Value::Null, None),
        (json!(""), None),
        (json!([]), Some(none)),
        (json!("b a b"), Some("a b".parse().unwrap())),
        (json!(["b", "a"]), Some("a b".parse().unwrap())),
    ] {
        assert_eq!(check(&json!({"scope": scope})).unwrap().scope, want, "{scope}");
    }
}
