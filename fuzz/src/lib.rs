//! Fuzz targets: one function per parser of untrusted input, which panics if an invariant does not
//! hold. libFuzzer runs them (`./dev fuzz`), and `tests/fuzz_seeds.rs` runs them on the seeds.

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

/// Form body: escaping every byte of the parsed parameters and parsing them again gives the same.
pub fn form(input: &[u8]) {
    let Ok(form) = Form::parse(input) else { return };
    let names = form.names().collect::<Vec<_>>();
    let pairs = || names.iter().flat_map(|name| form.get_all(name).map(move |value| (*name, value)));
    for (n, name) in names.iter().enumerate() {
        let repeated = names.iter().take(n).any(|earlier| earlier == name);
        assert!(!repeated || matches!(*name, "resource" | "audience"), "duplicate parameter `{name}`");
    }
    assert!(pairs().all(|(_, value)| !value.is_empty()), "a parameter without a value must count as absent");
    let escaped = |text: &str| text.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02x}"));
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    let encoded =
        once.iter().flat_map(|name| form.get_all(name).map(|value| format!("{}={}", escaped(name), escaped(value))));
    let reparsed =
        Form::parse(encoded.collect::<Vec<_>>().join("&").as_bytes()).expect("a parsed form can be encoded and parsed");
    for name in once {
        assert!(form.get_all(name).eq(reparsed.get_all(name)), "`{name}` changes when it is escaped");
    }
}

/// JWS: the input as a token, and as header and payload with a zero byte between them, so that the
/// fuzzer does not need to find valid base64.
pub fn jws(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check_jws(text);
    }
    let mut parts = input.splitn(2, |byte| *byte == 0);
    if let (Some(header), Some(payload)) = (parts.next(), parts.next()) {
        check_jws(&format!(
            "{}.{}.{}",
            encode_base64url(header),
            encode_base64url(payload),
            encode_base64url(b"signature")
        ));
    }
}

/// Checks that a parsed token has exactly one text.
fn check_jws(text: &str) {
    let Ok(jws) = UnverifiedJws::parse(text) else { return };
    assert!(text.len() <= MAX_JWT_BYTES && jws.text() == text);
    let signed = std::str::from_utf8(jws.signing_input()).expect("a part of UTF-8 text is UTF-8");
    assert_eq!(format!("{signed}.{}", encode_base64url(jws.signature())), text, "the token has another encoding");
    let header = jws.header();
    assert!(header.typ.as_ref().is_none_or(|typ| !typ.bytes().any(|byte| byte.is_ascii_uppercase())));
    let (issuer, subject) = (jws.claimed_issuer().map(str::to_owned), jws.claimed_subject().map(str::to_owned));
    let payload = jws.into_payload();
    assert_eq!(issuer.as_deref(), payload.get("iss").and_then(Value::as_str));
    assert_eq!(subject.as_deref(), payload.get("sub").and_then(Value::as_str));
}

/// `authorization_details`: serializing and parsing again gives the same authority.
pub fn details(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let target = "https://files.example.com/mcp".parse::<ResourceUri>().ok();
    let Ok(authority) = parse_details(text, target.as_ref()) else { return };
    assert!((1..=MAX_DETAILS).contains(&authority.len()));
    let written = serde_json::to_string(&authority).expect("an authority is JSON");
    let stored = serde_json::from_str::<Authority>(&written).expect("a serialized authority parses");
    assert_eq!(stored, authority);
    assert_eq!(stored.hash(), authority.hash());
    assert!(
        authority.is_subset_of(&stored) && stored.is_subset_of(&authority) && authority.intersect(&stored) == authority
    );
    // A product of arrays is longer when serialized, and may then be too long for a request.
    if written.len() <= MAX_DETAILS_BYTES {
        assert_eq!(parse_details(&written, None).as_ref(), Ok(&authority));
    }
    // Details that parse without the resource of the request have the same meaning.
    if let Ok(alone) = parse_details(text, None) {
        assert_eq!(alone, authority);
    }
}

const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);
const US: &str = "https://sts.example.com";

/// Claims: strict JSON agrees with another parser, and claims that pass the checks satisfy the
/// rules.
pub fn claims(input: &[u8]) {
    let Ok(value) = strict_json::parse(input, 32) else { return };
    let loose = serde_json::from_slice::<Value>(input).expect("strict JSON is JSON");
    assert_eq!(loose, value, "another parser gives another value");
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
            let expected = if kind == SubjectTokenType::IdToken { &agent_client_ids[..] } else { &issuer.audiences };
            assert!(user.audiences.len() == 1 && expected.contains(&user.audiences[0]));
            let has = |name: &str| claims.get(name).is_some_and(|value| !value.is_null());
            assert_eq!(user.is_key_bound, has("cnf"));
            assert_eq!(user.chain.is_some(), has("act"));
            assert_eq!(user.raw_claims, claims);
        }
    }
    let planner = "planner".parse().expect("a client id");
    let max_lifetime = Lifetime::minutes(5);
    let rules = AssertionRules { issuer: US, token_endpoint: None, leeway, max_lifetime };
    if let Ok(checked) = check_assertion(&claims, &planner, &rules, NOW) {
        let exp = claims.get("exp").and_then(Value::as_f64).expect("`exp` is missing");
        let exp = Timestamp::from_unix(exp.floor() as i64);
        assert!(!checked.jti.is_empty());
        assert!(
            !exp.saturating_add(leeway).has_passed(NOW)
                && exp <= NOW.saturating_add(max_lifetime).saturating_add(leeway)
        );
        assert!(checked.remember_until > exp, "a replay is possible before the expiry");
    }
}

fn issuer() -> TrustedIssuer {
    let entry = json!({
        "issuer": "https://login.example.com", "keys": "discovery", "audiences": [US], "algorithms": ["ES256"],
        "token_types": ["access_token", "id_token", "jwt"], "subject_prefix": "idp|",
    });
    serde_json::from_value(entry).expect("an issuer")
}

/// Scope: serializing gives the same set, in at most as many bytes.
pub fn scope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(set) = text.parse::<ScopeSet>() else { return };
    let written = set.to_string();
    assert!(!set.is_empty() && written.len() <= text.len());
    assert_eq!(written.parse::<ScopeSet>().as_ref(), Ok(&set));
    assert!(text.split(' ').all(|scope| set.iter().any(|one| one.as_str() == scope)), "a scope was lost");
}

/// URIs: canonicalization is idempotent for a resource, and an issuer is unchanged.
pub fn uri(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(uri) = text.parse::<ResourceUri>() {
        assert_eq!(uri.as_str().parse::<ResourceUri>().as_ref(), Ok(&uri), "canonicalization is not idempotent");
        assert!(!uri.as_str().contains(|c: char| c == '#' || c.is_control() || c.is_whitespace()));
    }
    if let Ok(issuer) = text.parse::<IssuerUrl>() {
        assert_eq!(issuer.as_str(), text);
        assert!(!text.contains(['?', '#']));
    }
}
