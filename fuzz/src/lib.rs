//! What strangers can send, and what must hold whatever they send: one function an entry point, which panics when it does
//! not hold. libFuzzer drives them (`./dev fuzz`), and so does `tests/fuzz_seeds.rs`, from the seeds and without libFuzzer.

use errand::{
    domain::{
        authority::{Authority, MAX_DETAILS, MAX_DETAILS_BYTES, parse_details},
        encode_base64url,
        encoding::strict_json,
        jose::jws::UnverifiedJws,
        registry::issuer::{SubjectTokenType, TrustedIssuer},
        scope::ScopeSet,
        settings::MAX_JWT_BYTES,
        time::{Lifetime, Timestamp},
        token::foreign_claims::{AssertionRules, UserTokenRules, check_assertion, check_user_claims},
        uri::{IssuerUrl, ResourceUri},
    },
    http::Form,
};
use serde_json::{Value, json};

/// A body: what was read of it, written again with every byte escaped, reads the same.
pub fn form(input: &[u8]) {
    let Ok(form) = Form::parse(input) else { return };
    let names = form.names().collect::<Vec<_>>();
    let pairs = || names.iter().flat_map(|name| form.get_all(name).map(move |value| (*name, value)));
    for (n, name) in names.iter().enumerate() {
        let repeated = names.iter().take(n).any(|before| before == name);
        assert!(!repeated || matches!(*name, "resource" | "audience"), "`{name}` stands twice");
    }
    assert!(pairs().all(|(_, value)| !value.is_empty()), "a parameter without a value counts as not there");
    let escaped = |text: &str| text.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02x}"));
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    let again =
        once.iter().flat_map(|name| form.get_all(name).map(|value| format!("{}={}", escaped(name), escaped(value))));
    let again = Form::parse(again.collect::<Vec<_>>().join("&").as_bytes()).expect("what was read can be written");
    for name in once {
        assert!(form.get_all(name).eq(again.get_all(name)), "`{name}` reads another way when it is escaped");
    }
}

/// A token as it comes, and one whose header and payload are what comes, with a zero byte between them: the fuzzer is not
/// to spend its time on base64.
pub fn jws(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        taken_apart(text);
    }
    let mut parts = input.splitn(2, |byte| *byte == 0);
    if let (Some(header), Some(payload)) = (parts.next(), parts.next()) {
        taken_apart(&format!(
            "{}.{}.{}",
            encode_base64url(header),
            encode_base64url(payload),
            encode_base64url(b"signature")
        ));
    }
}

/// Whatever was taken apart is one token with one text.
fn taken_apart(text: &str) {
    let Ok(jws) = UnverifiedJws::parse(text) else { return };
    assert!(text.len() <= MAX_JWT_BYTES && jws.text() == text);
    let signed = std::str::from_utf8(jws.signing_input()).expect("a part of a text is a text");
    assert_eq!(format!("{signed}.{}", encode_base64url(jws.signature())), text, "a value has one text");
    let header = jws.header();
    assert!(header.typ.as_ref().is_none_or(|typ| !typ.bytes().any(|byte| byte.is_ascii_uppercase())));
    let (issuer, subject) = (jws.claimed_issuer().map(str::to_owned), jws.claimed_subject().map(str::to_owned));
    let payload = jws.into_payload();
    assert_eq!(issuer.as_deref(), payload.get("iss").and_then(Value::as_str));
    assert_eq!(subject.as_deref(), payload.get("sub").and_then(Value::as_str));
}

/// What parses serialises, and what was serialised parses back to the same.
pub fn details(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let target = "https://files.example.com/mcp".parse::<ResourceUri>().ok();
    let Ok(authority) = parse_details(text, target.as_ref()) else { return };
    assert!((1..=MAX_DETAILS).contains(&authority.len()));
    let written = serde_json::to_string(&authority).expect("an authority is JSON");
    let stored = serde_json::from_str::<Authority>(&written).expect("what we write, we read");
    assert_eq!(stored, authority);
    assert_eq!(stored.hash(), authority.hash());
    assert!(
        authority.is_subset_of(&stored) && stored.is_subset_of(&authority) && authority.intersect(&stored) == authority
    );
    // A product of arrays is longer once it is written out, so it may be too long for a request.
    if written.len() <= MAX_DETAILS_BYTES {
        assert_eq!(parse_details(&written, None).as_ref(), Ok(&authority));
    }
    // Without the request's resource, what parses means the same.
    if let Ok(alone) = parse_details(text, None) {
        assert_eq!(alone, authority);
    }
}

const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);
const US: &str = "https://sts.example.com";

/// Strict JSON says what any parser says; and claims that pass every check keep to the rules.
pub fn claims(input: &[u8]) {
    let Ok(value) = strict_json::parse(input, 32) else { return };
    let loose = serde_json::from_slice::<Value>(input).expect("strict JSON is JSON");
    assert_eq!(loose, value, "another parser reads something else");
    let Value::Object(claims) = value else { return };
    let leeway = Lifetime::seconds(30);
    let issuer = issuer();
    let agent_client_ids = ["planner-client".to_owned()];
    for kind in [SubjectTokenType::AccessToken, SubjectTokenType::IdToken, SubjectTokenType::Jwt] {
        let rules = UserTokenRules {
            issuer: &issuer,
            kind,
            agent_client_ids: &agent_client_ids,
            foreign_prefixes: vec!["corp|"],
            leeway,
        };
        if let Ok(user) = check_user_claims(claims.clone(), &rules, NOW) {
            assert!(user.expires > NOW && user.requester.issuer == issuer.issuer);
            assert!(user.requester.subject.as_str().starts_with("idp|"));
            let ours = if kind == SubjectTokenType::IdToken { &agent_client_ids[..] } else { &issuer.audiences };
            assert!(user.audiences.len() == 1 && ours.contains(&user.audiences[0]));
            assert_eq!(user.is_key_bound, claims.contains_key("cnf"));
            assert_eq!(user.chain.is_some(), claims.contains_key("act"));
            assert_eq!(user.raw_claims, claims);
        }
    }
    let planner = "planner".parse().expect("a client id");
    let max_lifetime = Lifetime::minutes(5);
    let rules = AssertionRules { issuer: US, token_endpoint: None, leeway, max_lifetime };
    if let Ok(checked) = check_assertion(&claims, &planner, &rules, NOW) {
        let exp = claims.get("exp").and_then(Value::as_i64).map(Timestamp::from_unix).expect("there is no end");
        assert!(!checked.jti.is_empty());
        assert!(
            !exp.saturating_add(leeway).has_passed(NOW)
                && exp <= NOW.saturating_add(max_lifetime).saturating_add(leeway)
        );
        assert!(checked.remember_until > exp, "a replay would find a gap");
    }
}

fn issuer() -> TrustedIssuer {
    let entry = json!({
        "issuer": "https://login.example.com", "keys": "discovery", "audiences": [US], "algorithms": ["ES256"],
        "token_types": ["access_token", "id_token", "jwt"], "subject_prefix": "idp|",
    });
    serde_json::from_value(entry).expect("an issuer")
}

/// A list of scopes written again is the same set, and at most as long.
pub fn scope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(set) = text.parse::<ScopeSet>() else { return };
    let written = set.to_string();
    assert!(!set.is_empty() && written.len() <= text.len());
    assert_eq!(written.parse::<ScopeSet>().as_ref(), Ok(&set));
    assert!(text.split(' ').all(|scope| set.iter().any(|one| one.as_str() == scope)), "a scope was lost");
}

/// The canonical form of a resource is its own canonical form; an issuer stays as it is written.
pub fn uri(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(uri) = text.parse::<ResourceUri>() {
        assert_eq!(uri.as_str().parse::<ResourceUri>().as_ref(), Ok(&uri), "not its own canonical form");
        assert!(!uri.as_str().contains(|c: char| c == '#' || c.is_control() || c.is_whitespace()));
    }
    if let Ok(issuer) = text.parse::<IssuerUrl>() {
        assert_eq!(issuer.as_str(), text);
        assert!(!text.contains(['?', '#']));
    }
}
