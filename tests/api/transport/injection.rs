//! Hostile requests. The response must be the expected error, and must not contain any part of the
//! request.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::Value;

use crate::{
    idp::{Key, b64},
    server::{ACCESS_TOKEN, FILES, Form, ID_TOKEN, JWT_BEARER, NOTES, TOKEN_EXCHANGE, TXN_TOKEN},
};

/// A request, its sent values, and the expected status and code.
pub struct Row {
    pub name: String,
    pub request: RequestBuilder,
    pub sent: Vec<String>,
    pub expected: (u16, &'static str),
}

impl Row {
    /// Creates a request with a form.
    pub fn form(name: impl Into<String>, request: RequestBuilder, form: &Form, expected: (u16, &'static str)) -> Self {
        let sent = form.iter().map(|(_, value)| value.clone()).collect();
        Self { name: name.into(), request: request.form(form), sent, expected }
    }

    /// Creates a request with an unencoded form body.
    pub fn raw(
        name: impl Into<String>,
        request: RequestBuilder,
        body: impl Into<Vec<u8>>,
        expected: (u16, &'static str),
    ) -> Self {
        let body = body.into();
        let sent = vec![String::from_utf8_lossy(&body).into_owned()];
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        Self { name: name.into(), request, sent, expected }
    }
}

/// Sends all requests, and fails with the list of unexpected responses.
pub async fn check_rows(rows: Vec<Row>) {
    let mut failures = Vec::new();
    for Row { name, request, sent, expected } in rows {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                failures.push(format!("{name}: {error:?}"));
                continue;
            }
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let code = error_code(&text);
        if (status, code.as_str()) != expected {
            failures.push(format!("{name}: {status} {text}, expected {expected:?}"));
        }
        if let Some(piece) = find_echo(&headers, &text, &sent) {
            failures.push(format!("{name}: `{piece}` is repeated in {text} {headers:?}"));
        }
        if headers.get("cache-control").is_none_or(|value| value != "no-store") || !headers.contains_key("x-request-id")
        {
            failures.push(format!("{name}: {headers:?}"));
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

/// Returns the code of an OAuth error or the type of a problem, or an empty string.
pub fn error_code(text: &str) -> String {
    let body = serde_json::from_str::<Value>(text).unwrap_or_default();
    let problem = body["type"].as_str().and_then(|uri| uri.strip_prefix("urn:errand:problem:"));
    body["error"].as_str().or(problem).unwrap_or_default().to_owned()
}

const FRAGMENT_LENGTH: usize = 8;

/// Returns the first fragment of eight characters of the request that the response repeats.
/// Constants of the standards don't count.
pub fn find_echo(headers: &HeaderMap, body: &str, sent: &[String]) -> Option<String> {
    // The request id begins with the time, as do the ids in Errand's tokens.
    let headers = headers.iter().filter(|(name, _)| *name != "x-request-id");
    // A registered URI that the client may use and that resembles what it sent.
    let hint = |uri: &str| format!("the nearest one that the client has access to is {uri} ");
    let body = [FILES, NOTES].iter().fold(body.to_owned(), |body, uri| body.replace(&hint(uri), ""));
    let lines = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let response = fragments(&lines.chain([body]).collect::<Vec<_>>().join("\n"));
    let public = [ACCESS_TOKEN, TXN_TOKEN, ID_TOKEN, TOKEN_EXCHANGE, JWT_BEARER, "client-authentication+jwt"];
    // Words of the error texts that a request may contain as well.
    let words = ["identifier\"", "locations", "resource", "authentication", "fragment", "https://"];
    let allowed = public.iter().chain(&words).flat_map(|text| fragments(text)).collect::<HashSet<_>>();
    let all = sent.iter().flat_map(|value| [vec![value.clone()], claim_values(value)].concat());
    all.flat_map(|value| fragments(&value)).find(|piece| response.contains(piece) && !allowed.contains(piece))
}

fn fragments(text: &str) -> HashSet<String> {
    let chars = text.chars().collect::<Vec<_>>();
    // Long runs of one character are padding.
    chars
        .windows(FRAGMENT_LENGTH)
        .filter(|window| window.iter().any(|c| *c != window[0]))
        .map(|w| w.iter().collect())
        .collect()
}

/// Returns the values in the header and the payload of a token.
fn claim_values(token: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in token.split('.') {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(part) else { continue };
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { continue };
        collect_strings(&value, &mut found);
    }
    found
}

fn collect_strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Number(number) => found.push(number.to_string()),
        Value::Array(list) => list.iter().for_each(|value| collect_strings(value, found)),
        Value::Object(object) => object.values().for_each(|value| collect_strings(value, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Returns variants of a valid token that are invalid and can be made without a key.
pub fn corrupted_tokens(token: &str) -> Vec<(&'static str, String)> {
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let with_header = |header: &str| format!("{}.{payload}.{signature}", b64(header));
    let last = signature.chars().last().unwrap();
    // The last character of 64 bytes has four unused bits.
    let other = char::from(last as u8 + 1);
    let bits = format!("{header}.{payload}.{}{other}", &signature[..signature.len() - 1]);
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[5] ^= 1;
    let none = r#"{"alg":"none","typ":"at+jwt"}"#;
    vec![
        ("only dots", "..".into()),
        ("one part", header.into()),
        ("two parts", format!("{header}.{payload}")),
        ("two parts and a dot", format!("{header}.{payload}.")),
        ("four parts", format!("{token}.{signature}")),
        ("five parts", format!("{token}.{signature}.{signature}")),
        ("padding", format!("{token}==")),
        ("padding in the payload", format!("{header}.{payload}=.{signature}")),
        ("unused bits set", bits),
        ("a leading space", format!(" {token}")),
        ("a trailing line break", format!("{token}\n")),
        ("the standard base64 alphabet", format!("{header}.{payload}.{}+/", &signature[..signature.len() - 2])),
        ("not ASCII", format!("{header}.{payload}.ä{signature}")),
        ("a NUL", format!("{header}.{payload}\0.{signature}")),
        ("alg none", format!("{}.{payload}.", b64(none))),
        ("alg none with a signature", with_header(none)),
        ("alg NONE", with_header(r#"{"alg":"NONE","typ":"at+jwt"}"#)),
        ("alg empty", with_header(r#"{"alg":"","typ":"at+jwt"}"#)),
        ("no alg", with_header(r#"{"typ":"at+jwt"}"#)),
        ("header an array", with_header("[]")),
        ("header not JSON", with_header("alg=ES256")),
        ("r = s = 0", format!("{header}.{payload}.{}", b64([0; 64]))),
        ("r = s = 0 in DER", format!("{header}.{payload}.{}", b64([0x30, 6, 2, 1, 0, 2, 1, 0]))),
        ("r = s = 255…", format!("{header}.{payload}.{}", b64([255; 64]))),
        ("a bit of the signature", format!("{header}.{payload}.{}", b64(flipped))),
        ("a short signature", format!("{header}.{payload}.{}", b64([1; 8]))),
        ("another payload", format!("{header}.{}.{signature}", b64(r#"{"sub":"mallory-the-other"}"#))),
        ("20 KiB", format!("{header}.{}.{signature}", "A".repeat(20 * 1024))),
    ]
}

/// Where an attacker would publish a key.
const JWKS: &str = "https://evil.example/keys";

/// Returns valid tokens whose headers have parameters that are ignored, since keys come from the
/// configured place only.
pub fn ignored_headers(key: &Key, typ: &str, claims: impl Fn() -> Value) -> Vec<(&'static str, String)> {
    let (kid, public) = (&key.kid, key.public());
    let rows = [
        ("jwk", format!(r#""jwk":{public}"#)),
        ("a foreign jwk", format!(r#""jwk":{}"#, Key::new("stranger-1").public())),
        ("jku", format!(r#""jku":"{JWKS}""#)),
        ("x5u", format!(r#""x5u":"{JWKS}""#)),
        ("x5c", r#""x5c":["MIIB"]"#.to_owned()),
        ("x5t", r#""x5t":"AAAA","x5t#S256":"AAAA""#.to_owned()),
        ("an unknown parameter", r#""nonce":"abc""#.to_owned()),
    ];
    let signed = |more: &str| {
        key.sign_raw(&format!(r#"{{"alg":"ES256","typ":"{typ}","kid":"{kid}",{more}}}"#), &claims().to_string())
    };
    rows.iter().map(|(name, more)| (*name, signed(more))).collect()
}

/// Returns tokens with headers that must be rejected, correctly signed where possible.
pub fn bad_headers(key: &Key, typ: &str, claims: &Value) -> Vec<(&'static str, String)> {
    let (kid, payload) = (&key.kid, claims.to_string());
    let good = format!(r#""alg":"ES256","typ":"{typ}""#);
    let signed = |header: String| key.sign_raw(&header, &payload);
    let foreign = Key::new("stranger-1");
    let symmetric = |secret: &[u8]| {
        let input = format!("{}.{}", b64(format!(r#"{{"alg":"HS256","typ":"{typ}","kid":"{kid}"}}"#)), b64(&payload));
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), input.as_bytes());
        format!("{input}.{}", b64(mac))
    };
    let public = key.public();
    let point = ["x", "y"].map(|name| URL_SAFE_NO_PAD.decode(public[name].as_str().unwrap()).unwrap());
    let embedded = format!(r#"{{{good},"jwk":{}}}"#, foreign.public());
    let with_kid = format!(r#"{{{good},"kid":"{kid}","jwk":{}}}"#, foreign.public());
    vec![
        ("crit", signed(format!(r#"{{{good},"kid":"{kid}","crit":["exp"],"exp":1}}"#))),
        ("crit empty", signed(format!(r#"{{{good},"kid":"{kid}","crit":[]}}"#))),
        ("b64", signed(format!(r#"{{{good},"kid":"{kid}","b64":false}}"#))),
        ("zip", signed(format!(r#"{{{good},"kid":"{kid}","zip":"DEF"}}"#))),
        ("embedded foreign key", foreign.sign_raw(&embedded, &payload)),
        ("embedded foreign key with this kid", foreign.sign_raw(&with_kid, &payload)),
        ("jku of a foreign key", foreign.sign_raw(&format!(r#"{{{good},"kid":"{kid}","jku":"{JWKS}"}}"#), &payload)),
        ("x5u of a foreign key", foreign.sign_raw(&format!(r#"{{{good},"kid":"{kid}","x5u":"{JWKS}"}}"#), &payload)),
        ("kid with a path", signed(format!(r#"{{{good},"kid":"../../../../dev/null"}}"#))),
        ("kid with SQL", signed(format!(r#"{{{good},"kid":"x' OR '1'='1'; DROP TABLE audit; --"}}"#))),
        ("kid with NUL", signed(format!(r#"{{{good},"kid":"idp\u0000-1"}}"#))),
        ("kid a number", signed(format!(r#"{{{good},"kid":17}}"#))),
        ("foreign key with this kid", foreign.sign_raw(&format!(r#"{{{good},"kid":"{kid}"}}"#), &payload)),
        ("foreign key without kid", foreign.sign_raw(&format!("{{{good}}}"), &payload)),
        ("duplicate alg", signed(format!(r#"{{"alg":"none",{good},"kid":"{kid}"}}"#))),
        ("alg in lower case", signed(format!(r#"{{"alg":"es256","typ":"{typ}","kid":"{kid}"}}"#))),
        ("alg of another size", signed(format!(r#"{{"alg":"ES384","typ":"{typ}","kid":"{kid}"}}"#))),
        ("alg none, and signed", signed(format!(r#"{{"alg":"none","typ":"{typ}","kid":"{kid}"}}"#))),
        ("typ a number", signed(format!(r#"{{"alg":"ES256","typ":7,"kid":"{kid}"}}"#))),
        ("header nested", signed(format!(r#"{{{good},"kid":"{kid}","x":{}1{}}}"#, "[".repeat(500), "]".repeat(500)))),
        ("HS256 with the public JWK", symmetric(public.to_string().as_bytes())),
        ("HS256 with the point", symmetric(&[&[4_u8][..], &point[0], &point[1]].concat())),
        ("HS256 with nothing", symmetric(b"")),
    ]
}

/// Returns correctly signed tokens with invalid or ambiguous payloads, for every kind of token.
pub fn bad_payloads(key: &Key, typ: &str, claims: &Value) -> Vec<(&'static str, String)> {
    let header = format!(r#"{{"alg":"ES256","typ":"{typ}","kid":"{}"}}"#, key.kid);
    let text = claims.to_string();
    let members = &text[1..];
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims.to_string()
    };
    // A lenient parser keeps the last duplicate, so the bad value is placed both before and after
    // the good one.
    let with = |name: &str, value: &str| {
        let rest = without(name);
        format!(r#"{{"{name}":{value},{}"#, &rest[1..])
    };
    let audience = claims["aud"].as_str().unwrap();
    let mut rows = vec![
        ("payload an array", format!("[{text}]")),
        ("payload a string", Value::String(text.clone()).to_string()),
        ("payload a number", "17".into()),
        ("payload null", "null".into()),
        ("payload not JSON", "sub=alice-the-first".into()),
        ("payload with trailing data", format!("{text} {text}")),
        ("duplicate sub", format!(r#"{{"sub":"mallory-the-other",{members}"#)),
        ("duplicate sub, escaped", format!(r#"{{"\u0073ub":"mallory-the-other",{members}"#)),
        ("duplicate aud", format!(r#"{{"aud":"https://other.example/mcp",{members}"#)),
        ("nested 100 levels", with("x", &format!("{}{}", "[".repeat(100), "]".repeat(100)))),
        ("nested 10,000 levels", with("x", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)))),
    ];
    for (name, claim, value) in [
        ("exp negative", "exp", "-1"),
        ("exp 1e400", "exp", "1e400"),
        ("exp 1e300", "exp", "1e300"),
        ("exp beyond 64 bits", "exp", "18446744073709551616"),
        ("exp at the end of 64 bits", "exp", "9223372036854775807"),
        ("exp a string", "exp", r#""4102444800""#),
        ("exp null", "exp", "null"),
        ("exp true", "exp", "true"),
        ("exp past", "exp", "1700000000"),
        ("nbf ahead", "nbf", "4102444800"),
        ("nbf a string", "nbf", r#""1700000000""#),
        ("iat ahead", "iat", "4102444800"),
        ("iat ahead, a float", "iat", "4102444800.5"),
        ("exp past, a float", "exp", "1700000000.5"),
        ("iss a number", "iss", "1234567890"),
        ("iss an array", "iss", r#"["https://login.example.com"]"#),
        ("iss another", "iss", r#""https://elsewhere.example""#),
        ("sub a number", "sub", "1234567890"),
        ("sub empty", "sub", r#""""#),
        ("sub null", "sub", "null"),
        ("sub an array", "sub", r#"["alice-the-first"]"#),
        ("sub with NUL", "sub", r#""alice\u0000-the-first""#),
        ("aud empty", "aud", r#""""#),
        ("aud an empty array", "aud", "[]"),
        ("aud null", "aud", "null"),
        ("aud a number", "aud", "1234567890"),
        ("aud an object", "aud", r#"{"a":"b"}"#),
        ("jti a number", "jti", "1234567890"),
        ("jti null", "jti", "null"),
    ] {
        rows.push((name, with(claim, value)));
    }
    let audiences = [
        ("aud of two", format!(r#"["{audience}","https://other.example/mcp"]"#)),
        ("aud repeated", format!(r#"["{audience}","{audience}"]"#)),
        ("aud in another case", format!(r#""{}""#, audience.to_uppercase())),
        ("aud with a slash", format!(r#""{audience}/""#)),
        ("aud with a space", format!(r#"" {audience}""#)),
        ("aud with a path", format!(r#""{audience}/oauth2/other""#)),
    ];
    rows.extend(audiences.iter().map(|(name, value)| (*name, with("aud", value))));
    rows.extend([("no exp", without("exp")), ("no sub", without("sub")), ("no iss", without("iss"))]);
    rows.extend([("no aud", without("aud")), ("no jti", without("jti"))]);
    rows.into_iter().map(|(name, payload)| (name, key.sign_raw(&header, &payload))).collect()
}
