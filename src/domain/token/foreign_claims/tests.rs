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
    assert!(check(&json!({"cnf": {}})).unwrap().is_key_bound, "whatever is in it");
    assert!(!check(&json!({"cnf": "null"})).unwrap().is_key_bound, "null is absent");
    assert!(plain.ignored_claims.is_empty());
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
        (json!({"iat": null}), Err(ClaimError::MissingOptional("iat"))),
        (json!({"exp": "null"}), Err(ClaimError::Missing("exp"))),
        (json!({"iat": "null"}), Err(ClaimError::MissingOptional("iat"))),
        (json!({"nbf": "null"}), Ok(())),
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
    for name in ["exp", "iat", "nbf"] {
        for value in [
            json!((NOW + 60).to_string()),
            json!("2026-11-20T00:00:00Z"),
            json!(true),
            json!([NOW + 60]),
            json!({"$date": NOW}),
        ] {
            rows.push((json!({ name: value }), bad(name)));
        }
        // More likely a number of milliseconds than a date after the year 9999.
        for value in
            [json!(1e300), json!(i64::MAX), json!(u64::MAX), json!(253_402_300_800_i64), json!(253_402_300_800.5)]
        {
            rows.push((json!({ name: value }), Err(ClaimError::OutOfRange(name))));
        }
    }
    // Any JSON number is a date (RFC 7519 §2). A fraction of a second does not count.
    for (changes, want) in [
        (json!({"exp": 1.795_200_6e9}), Ok(())),
        (json!({"exp": 1_795_200_060.0}), Ok(())),
        (json!({"exp": 1_795_200_060.5}), Ok(())),
        (json!({"exp": 1_795_200_001.999}), Ok(())),
        (json!({"exp": 1_795_200_000.999}), Err(ClaimError::Expired)),
        (json!({"exp": -1}), Err(ClaimError::Expired)),
        (json!({"exp": -1e300}), Err(ClaimError::Expired)),
        (json!({"exp": -0.0}), Err(ClaimError::Expired)),
        (json!({"exp": i64::MIN}), Err(ClaimError::Expired)),
        (json!({"iat": 1_795_200_030.999}), Ok(())),
        (json!({"iat": 1_795_200_031.0}), Err(ClaimError::NotYetValid)),
        (json!({"nbf": -62_135_596_800_i64}), Ok(())),
        (json!({"nbf": 1_795_200_031.5}), Err(ClaimError::NotYetValid)),
        (json!({"iat": 1e9}), Ok(())),
    ] {
        rows.push((changes, want));
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
    // A number that exceeds 64 bits is parsed as a float.
    let Value::Object(huge) = parse(br#"{"exp":99999999999999999999999}"#, 8).unwrap() else { panic!() };
    assert_eq!(read_date(&huge, "exp"), Err(ClaimError::OutOfRange("exp")));
}

#[test]
fn wrong_issuer_or_audience_is_rejected() {
    let wrong = || Err(ClaimError::UnknownAudience);
    let others = || Err(ClaimError::OtherAudience);
    let bad = || Err(ClaimError::Malformed("aud"));
    let rows = [
        (json!({"iss": null}), Err(ClaimError::Missing("iss"))),
        (json!({"iss": "https://login.example.com/"}), Err(ClaimError::Malformed("iss"))),
        (json!({"iss": "https://LOGIN.example.com"}), Err(ClaimError::Malformed("iss"))),
        (json!({"iss": [LOGIN]}), Err(ClaimError::Malformed("iss"))),
        (json!({"aud": null}), Err(ClaimError::MissingAudience)),
        (json!({"aud": "null"}), Err(ClaimError::MissingAudience)),
        (json!({"aud": 1}), bad()),
        (json!({"aud": {US: 1}}), bad()),
        (json!({"aud": []}), bad()),
        (json!({"aud": ""}), bad()),
        (json!({"aud": [US, ""]}), bad()),
        (json!({"aud": [US, 1]}), bad()),
        (json!({"aud": [[US]]}), bad()),
        (json!({"aud": [US]}), Ok(())),
        (json!({"aud": ["api://errand"]}), Ok(())),
        (json!({"aud": [US, "https://other.example.com"]}), others()),
        (json!({"aud": [US, "api://errand"]}), others()),
        (json!({"aud": "https://STS.example.com"}), wrong()),
        (json!({"aud": "https://sts.example.com/"}), wrong()),
        (json!({"aud": "https://sts.example.com:443"}), wrong()),
        (json!({"aud": " https://sts.example.com"}), wrong()),
        (json!({"aud": "http://sts.example.com"}), wrong()),
        (json!({"aud": "https://sts.example.com.evil.example"}), wrong()),
        (json!({"aud": "https://sts.example.com https://other.example.com"}), wrong()),
        (json!({"aud": "*"}), wrong()),
        // An access token is for this server; a name of the agent is not accepted.
        (json!({"aud": "planner-app"}), wrong()),
    ];
    assert_rows(rows, check);
    let open = issuer(&json!({"other_audiences": "accept"}));
    let access = |changes: &Value| check_as(changes, &open, SubjectTokenType::AccessToken);
    let rows = [
        (json!({"aud": [US, "https://other.example.com"]}), Ok(())),
        (json!({"aud": ["https://other.example.com"]}), wrong()),
        (json!({"aud": "planner-app"}), wrong()),
    ];
    assert_rows(rows, access);
    // An ID token is for the agent, never for this server.
    let id = |changes: &Value| check_as(changes, &issuer(&json!({})), SubjectTokenType::IdToken);
    let rows = [
        (json!({"aud": "planner-app", "client_id": null, "jti": null}), Ok(())),
        (json!({"aud": ["planner-web"]}), Ok(())),
        (json!({"aud": "reader-app"}), Err(ClaimError::IdTokenAudience)),
        (json!({"aud": "Planner-App"}), Err(ClaimError::IdTokenAudience)),
        (json!({"aud": ["planner-app", "reader-app"]}), others()),
        (json!({"aud": US}), Err(ClaimError::IdTokenAudience)),
    ];
    assert_rows(rows, id);
    let jwt = |changes: &Value| check_as(changes, &issuer(&json!({})), SubjectTokenType::Jwt);
    assert_rows([(json!({"client_id": null, "jti": null}), Ok(())), (json!({"aud": "planner-app"}), wrong())], jwt);
}

#[test]
fn id_token_is_not_an_access_token() {
    let user = |kind| move |changes: &Value| check_as(changes, &issuer(&json!({})), kind);
    for claim in ["nonce", "at_hash", "c_hash"] {
        for kind in [SubjectTokenType::AccessToken, SubjectTokenType::Jwt] {
            let marked = || Err(ClaimError::IdTokenClaim(claim));
            let rows = [
                (json!({claim: "x"}), marked()),
                (json!({claim: ""}), marked()),
                (json!({claim: 1}), marked()),
                (json!({claim: "null"}), Ok(())),
            ];
            assert_rows(rows, user(kind));
        }
        assert_rows([(json!({"aud": "planner-app", claim: "x"}), Ok(()))], user(SubjectTokenType::IdToken));
    }
}

#[test]
fn invalid_subject_is_rejected() {
    let bad = || Err(ClaimError::Malformed("sub"));
    let foreign = || Err(ClaimError::ForeignSubjectPrefix);
    let too_long = || Err(ClaimError::TooLong("sub", 512));
    let rows = [
        (json!({"sub": null}), Err(ClaimError::Missing("sub"))),
        (json!({"sub": ""}), bad()),
        (json!({"sub": 7}), bad()),
        (json!({"sub": ["alice"]}), bad()),
        (json!({"sub": "ali\u{0}ce"}), bad()),
        (json!({"sub": "alice\n"}), bad()),
        (json!({"sub": "ali\u{85}ce"}), bad()),
        (json!({"sub": "null"}), Err(ClaimError::Missing("sub"))),
        (json!({"sub": "x".repeat(512)}), Ok(())),
        (json!({"sub": "x".repeat(513)}), too_long()),
        (json!({"sub": "é".repeat(257)}), too_long()),
        (json!({"sub": "x".repeat(1025)}), Err(ClaimError::TooLong("sub", 1024))),
        (json!({"sub": "auth0|5f7c8ec7"}), Ok(())),
        (json!({"sub": "partner:bob"}), foreign()),
        (json!({"sub": "partner:"}), foreign()),
        (json!({"sub": "corp/bob"}), foreign()),
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
        [
            (json!({"sub": "x".repeat(507)}), Ok(())),
            (json!({"sub": "x".repeat(508)}), too_long()),
            (json!({"sub": ""}), bad()),
        ],
        check_prefixed,
    );
    // A prefix that passed the registry's rules by mistake is still detected in the complete name.
    let near = issuer(&json!({"subject_prefix": "part"}));
    assert_rows([(json!({"sub": "ner:bob"}), foreign())], |changes| {
        check_as(changes, &near, SubjectTokenType::AccessToken)
    });
}

#[test]
fn invalid_client_or_token_id_is_rejected() {
    let rows = [
        (json!({"client_id": null}), Err(ClaimError::MissingOptional("client_id"))),
        (json!({"client_id": null, "azp": "planner-app"}), Err(ClaimError::MissingOptional("client_id"))),
        (json!({"client_id": 7}), Err(ClaimError::Malformed("client_id"))),
        (json!({"client_id": "null"}), Err(ClaimError::MissingOptional("client_id"))),
        (json!({"client_id": "a\u{0}b"}), Err(ClaimError::Malformed("client_id"))),
        (json!({"client_id": "x".repeat(1025)}), Err(ClaimError::TooLong("client_id", 1024))),
        (json!({"jti": null}), Err(ClaimError::MissingOptional("jti"))),
        (json!({"jti": "null"}), Err(ClaimError::MissingOptional("jti"))),
        (json!({"jti": 7}), Err(ClaimError::Malformed("jti"))),
        (json!({"events": {}}), Err(ClaimError::SecurityEvent)),
        (json!({"events": "null"}), Ok(())),
        (json!({"jti": "x".repeat(1024)}), Ok(())),
        (json!({"jti": "x".repeat(1025)}), Err(ClaimError::TooLong("jti", 1024))),
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
    let may = || Err(ClaimError::Malformed("may_act"));
    let act = || Err(ClaimError::Malformed("act"));
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
        (json!({"may_act": "planner-app"}), may()),
        (json!({"may_act": "null"}), Ok(())),
        (json!({"may_act": [{"sub": "planner-app"}]}), may()),
        (json!({"may_act": {}}), may()),
        (json!({"may_act": {"sub": 7}}), may()),
        (json!({"may_act": {"sub": "a\u{0}"}}), may()),
        (json!({"may_act": {"sub": "x", "iss": 7}}), may()),
        (json!({"may_act": {"sub": "x", "iss": null}}), Ok(())),
        (json!({"may_act": {"iss": LOGIN}}), may()),
        (json!({"may_act": {"iss": LOGIN, "sub": "x"}}), Ok(())),
        (json!({"act": "web"}), act()),
        (json!({"act": "null"}), Ok(())),
        (json!({"act": []}), act()),
        (json!({"act": {}}), act()),
        (json!({"act": {"sub": "web"}}), Ok(())),
        (json!({"act": {"iss": null, "sub": "web"}}), Ok(())),
        (json!({"act": {"iss": LOGIN}}), act()),
        (json!({"act": {"iss": "", "sub": "web"}}), act()),
        (json!({"act": {"iss": LOGIN, "sub": ""}}), act()),
        (json!({"act": {"iss": LOGIN, "sub": 7}}), act()),
        (json!({"act": {"iss": LOGIN, "sub": "web", "sub_profile": 7}}), Ok(())),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"sub": "edge"}}}), Ok(())),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"sub": "web"}}}), act()),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": null}}), Ok(())),
        // An actor appears once in a chain. The same name from another issuer is another actor.
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"iss": LOGIN, "sub": "web"}}}), act()),
        (json!({"act": {"iss": LOGIN, "sub": "web", "act": {"iss": US, "sub": "web"}}}), Ok(())),
        (json!({"act": nested(16)}), Ok(())),
        (json!({"act": nested(17)}), act()),
    ];
    assert_rows(rows, check);
    // The innermost actor is last, and the order is kept.
    let subs = check(&json!({"act": nested(3)})).unwrap().chain.unwrap();
    assert_eq!(subs.actors().map(|actor| actor.sub.as_str()).collect::<Vec<_>>(), ["h2", "h1", "h0"]);
    // Without `iss`, an actor is one of the issuer itself (RFC 8693 §4.1).
    let chain = check(&json!({"act": {"sub": "web", "act": {"iss": US, "sub": "web"}}})).unwrap().chain.unwrap();
    assert_eq!(chain.actors().map(|actor| actor.iss.as_str()).collect::<Vec<_>>(), [LOGIN, US]);
    let odd = check(&json!({"act": {"sub": "web", "sub_profile": 7}})).unwrap();
    assert_eq!(odd.ignored_claims, ["act.sub_profile"]);
}

#[test]
fn scope_is_read_strictly() {
    let bad = || Err(ClaimError::Malformed("scope"));
    let rows = [
        (json!({"scope": "a \"b\""}), bad()),
        (json!({"scope": "a\\b"}), bad()),
        (json!({"scope": "a  b"}), bad()),
        (json!({"scope": " a"}), bad()),
        (json!({"scope": "a\tb"}), bad()),
        (json!({"scope": 7}), bad()),
        (json!({"scope": {"a": true}}), bad()),
        (json!({"scope": ["a", 7]}), bad()),
        (json!({"scope": ["a b"]}), bad()),
        (json!({"scope": ["a\""]}), bad()),
        (json!({"scope": [""]}), bad()),
        (json!({"scope": "null"}), Ok(())),
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
    // Providers send as many scopes as they like. None that is too long can be one of this server.
    let many = (0..200).map(|n| format!("s{n}")).collect::<Vec<_>>();
    for scope in [json!(many), json!(many.join(" "))] {
        assert_eq!(check(&json!({"scope": scope})).unwrap().scope.unwrap().iter().count(), 200);
    }
    let long = "x".repeat(129);
    assert_eq!(check(&json!({"scope": format!("a {long}")})).unwrap().scope, Some("a".parse().unwrap()));
    // Where the scope has no effect, its format does not matter.
    let ignoring = issuer(&json!({"subject_scopes": "ignore", "entitlements": []}));
    let claims = check_as(&json!({"scope": {"a": true}}), &ignoring, SubjectTokenType::AccessToken).unwrap();
    assert_eq!((claims.scope, claims.ignored_claims), (None, vec!["scope"]));
}

#[test]
fn claims_that_are_passed_on_are_left_out_if_they_cannot_be() {
    let none: &[&str] = &[];
    for (changes, ignored) in [
        (json!({"acr": 2}), &["acr"][..]),
        (json!({"acr": {"loa": 2}}), &["acr"]),
        (json!({"acr": "a\u{7}"}), &["acr"]),
        (json!({"acr": "x".repeat(1025)}), &["acr"]),
        (json!({"amr": "pwd"}), &["amr"]),
        (json!({"amr": ["pwd", 7]}), &["amr"]),
        (json!({"amr": ["x".repeat(65)]}), &["amr"]),
        (json!({"amr": vec!["x"; 17]}), &["amr"]),
        (json!({"auth_time": "2026-11-20T00:00:00Z"}), &["auth_time"]),
        (json!({"auth_time": 1e300}), &["auth_time"]),
        (json!({"auth_time": true, "acr": [], "amr": {}}), &["auth_time", "acr", "amr"]),
        (json!({"amr": vec!["x"; 16]}), none),
        (json!({"acr": "null", "amr": "null", "auth_time": "null"}), none),
    ] {
        let claims = check(&changes).unwrap();
        assert_eq!(claims.ignored_claims, ignored, "{changes}");
        if !ignored.is_empty() {
            assert_eq!(claims.auth_context, AuthenticationContext::default(), "{changes}");
        }
    }
    let context = check(&json!({"auth_time": 1_795_199_000.5, "acr": "loa2", "amr": "pwd"})).unwrap().auth_context;
    let auth_time = Some(Timestamp::from_unix(1_795_199_000));
    assert_eq!(context, AuthenticationContext { auth_time, acr: Some("loa2".into()), amr: None });
}

#[test]
fn client_stands_for_missing_audience_where_configured() {
    let cognito =
        issuer(&json!({"audiences": [], "audience_from": "client_id", "required_claims": {"token_use": "access"}}));
    let both = issuer(&json!({"audience_from": "client_id", "required_claims": {"token_use": "access", "v": 2}}));
    let jwt = |issuer, changes: &Value| check_as(changes, issuer, SubjectTokenType::Jwt).map(|claims| claims.audiences);
    let required = |name: &str| Err(ClaimError::RequiredClaim(name.into()));
    for (changes, want) in [
        (json!({"aud": null, "token_use": "access"}), Ok(vec![])),
        (json!({"aud": "null", "token_use": ["other", "access"]}), Ok(vec![])),
        (json!({"aud": null, "client_id": "reader-app", "token_use": "access"}), Err(ClaimError::ClientIsNotAgent)),
        (json!({"aud": null, "client_id": null, "token_use": "access"}), Err(ClaimError::ClientIsNotAgent)),
        (json!({"aud": null, "client_id": null, "azp": "planner-web", "token_use": "access"}), Ok(vec![])),
        (json!({"aud": null}), required("token_use")),
        (json!({"aud": null, "token_use": "id"}), required("token_use")),
        (json!({"aud": null, "token_use": "null"}), required("token_use")),
        (json!({"aud": null, "token_use": {"access": 1}}), required("token_use")),
        // An `aud` counts: the token is for another service.
        (json!({"aud": "planner-app", "token_use": "access"}), Err(ClaimError::UnknownAudience)),
        (json!({"aud": US, "token_use": "access"}), Err(ClaimError::UnknownAudience)),
        (json!({"aud": [], "token_use": "access"}), Err(ClaimError::Malformed("aud"))),
    ] {
        assert_eq!(jwt(&cognito, &changes), want, "{changes}");
    }
    for (changes, want) in [
        (json!({"token_use": "access", "v": 2}), Ok(vec![US.to_owned()])),
        (json!({"aud": null, "token_use": "access", "v": 2}), Ok(vec![])),
        (json!({"token_use": "access", "v": "2"}), required("v")),
        (json!({"token_use": "access"}), required("v")),
    ] {
        assert_eq!(jwt(&both, &changes), want, "{changes}");
    }
    let id = check_as(&json!({"aud": null, "token_use": "access"}), &cognito, SubjectTokenType::IdToken);
    assert_eq!(id.map(|_| ()), Err(ClaimError::MissingAudience), "an ID token always has one");
    let portal = issuer(&json!({"audience_from": "client_id", "required_claims": {"token_use": "access"},
        "api_audiences": ["portal"], "portal_clients": ["planner-app"]}));
    let token = json!({"aud": null, "token_use": "access"});
    let api = check_as(&token, &portal.with_api_audiences(), SubjectTokenType::Jwt);
    assert_eq!(api.map(|_| ()), Err(ClaimError::MissingAudience), "this server's own API needs an audience");
}

#[test]
fn required_claims_can_be_made_optional() {
    for (optional, changes) in [
        ("iat", json!({"iat": null})),
        ("iat", json!({"iat": "null"})),
        ("jti", json!({"jti": null})),
        ("client_id", json!({"client_id": null})),
    ] {
        let error = check(&changes).unwrap_err();
        assert!(matches!(error, ClaimError::MissingOptional(name) if name == optional), "{error}");
        let lenient = issuer(&json!({"optional_claims": [optional]}));
        check_as(&changes, &lenient, SubjectTokenType::AccessToken).unwrap();
    }
    let lenient = issuer(&json!({"optional_claims": ["iat", "jti"]}));
    let bad = check_as(&json!({"jti": 7}), &lenient, SubjectTokenType::AccessToken);
    assert_eq!(bad.map(|_| ()), Err(ClaimError::Malformed("jti")), "a wrong type stays an error");
    // An issuer may have another name for the client.
    let okta = issuer(&json!({"claims": {"client": ["cid"], "scope": "scp"}}));
    let claims = check_as(&json!({"client_id": null, "cid": "planner-app"}), &okta, SubjectTokenType::AccessToken);
    assert_eq!(claims.unwrap().client.as_deref(), Some("planner-app"));
}
