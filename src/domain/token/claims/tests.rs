//! Expiry of this server's tokens, and strictness of their parser.

use std::fmt;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::authority::{Arg, parse_detail};

#[test]
fn expired_or_implausibly_long_token_is_rejected() {
    let now = Timestamp::from_unix(1_795_200_000);
    for (from_now, want) in [
        (-1, Err(ClaimError::Expired)),
        (0, Err(ClaimError::Expired)),
        (1, Ok(())),
        (15 * 60, Ok(())),
        (15 * 60 + 3600, Ok(())),
        (15 * 60 + 3601, Err(ClaimError::LifetimeTooLong)),
        (i64::MAX / 2, Err(ClaimError::LifetimeTooLong)),
    ] {
        assert_eq!(check_expiry(Timestamp::from_unix(now.unix() + from_now), now), want, "{from_now}");
    }
}

const ID: &str = "01970000-0000-7000-8000-00000000000a";

fn valid_claims() -> Value {
    json!({
        "iss": "https://sts.example.com", "aud": "https://files.example.com/mcp", "sub": "zo\u{eb} \u{1f600}",
        "sub_iss": "https://login.example.com/", "client_id": "planner", "iat": 1_795_200_000, "exp": 1_795_200_300,
        "jti": ID, "txn": ID, "lineage": [ID], "rev": 4711, "scope": "files:read files:write",
        "authorization_details": [
            {"type": "mcp_tool", "locations": ["https://files.example.com/mcp"], "actions": ["tools/call"],
                "identifier": "read_file", "tool_digest": format!("sha-256:{}", "A".repeat(43)),
                "constraints": {"path": {"prefix": "/reports/"}, "n": {"min": 1.5, "max": 7}, "x": {"equals": {"a": [1]}}}},
            {"type": "mcp_tool", "locations": ["https://files.example.com/mcp"], "actions": ["resources/list"]},
        ],
        "act": {"iss": "https://sts.example.com", "sub": "reader", "sub_profile": "ai_agent",
            "act": {"iss": "https://sts.example.com", "sub": "planner"}},
        "task": {"id": ID, "issuer": "https://sts.example.com", "authority_hash": "sha-256:x"},
        "tctx": {"purpose": "quarterly report", "details": {"quarter": [3, 0.5, null]}},
        "rctx": {"ip": "192.0.2.1"}, "auth_time": 1_795_100_000, "acr": "2", "amr": ["pwd", "otp"],
        "status": {"status_list": {"idx": 5, "uri": "https://sts.example.com/status/1"}},
    })
}

/// Parses the payload as a foreign one is parsed: strict JSON, a tree of values, and then the
/// claims. The authority even takes the path of a request parameter.
fn read_via_values(payload: &[u8]) -> Option<TaskTokenClaims> {
    let mut value = strict_json::parse(payload, MAX_PAYLOAD_DEPTH).ok().filter(Value::is_object)?;
    let mut tree = |path| value.pointer_mut(path).map(Value::take);
    let (details, contexts) = (tree("/authorization_details")?, (tree("/rctx")?, tree("/tctx/details")));
    value["authorization_details"] = json!([]);
    value["rctx"] = json!({});
    let claims = serde_json::from_value::<TaskTokenClaims>(value).ok()?;
    let (Value::Object(rctx), request_details) = contexts else { return None };
    let request_details = match request_details {
        None => claims.tctx.details,
        Some(Value::Null) => None,
        Some(Value::Object(members)) => Some(members),
        Some(_) => return None,
    };
    let parse = |detail: &Value| parse_detail(&Arg::try_from(detail.clone()).ok()?, None).ok();
    let permissions = details.as_array()?.iter().map(parse).collect::<Option<Vec<_>>>()?;
    let authorization_details = permissions.into_iter().flatten().collect();
    let tctx = TaskContext { details: request_details, ..claims.tctx };
    Some(TaskTokenClaims { authorization_details, tctx, rctx, ..claims })
}

#[track_caller]
fn assert_readers_agree(payload: &[u8]) -> bool {
    let (claims, want) = (TaskTokenClaims::read(payload).ok(), read_via_values(payload));
    assert_eq!(claims, want, "{}", String::from_utf8_lossy(payload));
    claims.is_some()
}

#[test]
fn own_payload_is_read_as_strictly_as_a_foreign_one() {
    let good = valid_claims();
    assert!(assert_readers_agree(good.to_string().as_bytes()));
    let read = TaskTokenClaims::read(good.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), good, "nothing is lost");
    for (from, to, want) in [
        ("{\"iss\"", " {\"iss\"", true),
        ("\"rev\":4711", "\"rev\":4711\n", true),
        ("\"rev\"", "\"r\\u0065v\"", true),
        ("\"acr\":\"2\"", "\"acr\":null", true),
        ("\"rctx\":{", "\"rctx\":{\"a\":\"\\u0000\",", true),
        ("{\"iss\"", "\u{feff}{\"iss\"", false),
        ("{\"iss\"", "[{\"iss\"", false),
        ("\"rev\":4711", "\"rev\":4711,\"rev\":4711", false),
        ("\"rev\":4711", "\"rev\":4711,\"r\\u0065v\":4711", false),
        ("\"rev\":4711", "\"rev\":4711.0", false),
        ("\"rev\":4711", "\"rev\":-1", false),
        ("\"rev\":4711", "\"rev\":18446744073709551616", false),
        ("\"rev\":4711", "\"rev\":\"4711\"", false),
        ("\"rev\":4711", "\"rev\":4711,\"more\":1", false),
        ("\"acr\":\"2\"", "\"acr\":null,\"acr\":null", false),
        ("\"ip\":", "\"a\":{\"b\":1,\"b\":1},\"ip\":", false),
        ("\"ip\":", "\"a\":\"\\ud800\",\"ip\":", false),
        ("\"ip\":", "\"a\":1e400,\"ip\":", false),
        ("\"quarter\":", "\"quarter\":1,\"quarter\":", false),
        ("\"purpose\":", "\"more\":1,\"purpose\":", false),
        ("\"authority_hash\":", "\"issuer\":\"https://sts.example.com\",\"authority_hash\":", false),
        ("\"prefix\":", "\"prefix\":\"/\",\"prefix\":", false),
        ("\"a\":[1]", "\"a\":[1],\"a\":[1]", false),
        ("\"identifier\":", "\"identifier\":\"other\",\"identifier\":", false),
        ("\"identifier\":", "\"more\":1,\"identifier\":", false),
        ("\"constraints\":{", "\"constraints\":null,\"x\":{", false),
        ("\"type\":\"mcp_tool\"", "\"type\":{\"mcp_tool\":null}", false),
        ("\"sub_profile\":", "\"sub\":\"x\",\"sub_profile\":", false),
        ("\"idx\":5", "\"idx\":5,\"idx\":5", false),
    ] {
        let text = good.to_string();
        assert!(text.contains(from), "{from}");
        assert_eq!(assert_readers_agree(text.replacen(from, to, 1).as_bytes()), want, "{from} as {to}");
    }
    let text = good.to_string();
    for tail in ["}", " {}", ",", "\u{b}"] {
        assert!(!assert_readers_agree(format!("{text}{tail}").as_bytes()), "{tail}");
    }
    assert!(!assert_readers_agree(text.replace("zo\u{eb}", "zo\u{1}").as_bytes()), "a control character");
    let bytes = text.into_bytes().into_iter().map(|byte| if byte == b'q' { 0xff } else { byte });
    assert!(!assert_readers_agree(&bytes.collect::<Vec<_>>()), "not UTF-8");
}

/// A claim of arbitrary depth may nest as deeply as in a foreign token, and no deeper.
#[test]
fn claim_nesting_beyond_limit_is_rejected() {
    for (path, levels_above) in [
        ("/rctx/ip", 2),
        ("/tctx/details/quarter", 3),
        ("/authorization_details/0/constraints/x/equals", 5),
        ("/authorization_details/0/constraints/x/equals/a", 6),
    ] {
        let deepest = MAX_PAYLOAD_DEPTH - levels_above;
        for (open, inner, close) in [("[", "", "]"), ("[", "1", "]"), ("{\"m\":", "1", "}"), ("{\"m\":", "{}", "}")] {
            for depth in deepest - 3..deepest + 3 {
                let mut claims = valid_claims();
                *claims.pointer_mut(path).unwrap() = json!("HERE");
                let deep = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
                let is_read = assert_readers_agree(claims.to_string().replace("\"HERE\"", &deep).as_bytes());
                assert_eq!(is_read, depth <= deepest, "{path}: {depth} levels of {open}{inner}");
            }
        }
    }
    for actors in [1, 15, 16, 17, 31, 200, 100_000] {
        let actor = |inner: String, n: usize| match inner.as_str() {
            "" => format!("{{\"iss\":\"https://sts.example.com\",\"sub\":\"a{n}\"}}"),
            _ => format!("{{\"iss\":\"https://sts.example.com\",\"sub\":\"a{n}\",\"act\":{inner}}}"),
        };
        let act = if actors > 1000 { "{\"act\":".repeat(actors) } else { (0..actors).fold(String::new(), actor) };
        let mut claims = valid_claims();
        claims["act"] = json!("HERE");
        assert_eq!(
            assert_readers_agree(claims.to_string().replace("\"HERE\"", &act).as_bytes()),
            actors <= 16,
            "{actors}"
        );
    }
}

/// To `serde_json` this member name means that the value contains JSON text. Here it is an ordinary
/// name.
#[test]
fn serde_json_private_member_name_has_no_effect() {
    let odd = json!({"$serde_json::private::RawValue": "[1]"});
    let mut claims = valid_claims();
    claims["rctx"]["odd"] = odd.clone();
    claims["tctx"]["details"]["odd"] = odd.clone();
    claims["authorization_details"][0]["constraints"]["x"]["equals"] = odd;
    let read = TaskTokenClaims::read(claims.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), claims);
}

#[test]
fn token_of_one_kind_is_rejected_as_another() {
    let api = json!({"iss": "https://sts.example.com", "aud": "https://sts.example.com", "sub": "ops", "client_id": "ops",
        "iat": 1_795_200_000, "exp": 1_795_200_300, "jti": ID, "rev": 1, "scope": "errand:admin"});
    let read = |claims: &Value| {
        let text = claims.to_string();
        (TaskTokenClaims::read(text.as_bytes()).is_ok(), ApiTokenClaims::read(text.as_bytes()).is_ok())
    };
    assert_eq!(read(&api), (false, true));
    assert_eq!(read(&valid_claims()), (true, false));
    let mut both = api.clone();
    both["txn"] = json!(ID);
    assert_eq!(read(&both), (false, false));
    both["txn"] = Value::Null;
    assert_eq!(read(&both), (false, false));
    // Serde would also accept the fields of a struct as an array.
    let bare = api.as_object().unwrap().values().cloned().collect::<Value>();
    assert!(serde_json::from_value::<ApiTokenClaims>(bare.clone()).is_ok());
    assert_eq!(read(&bare), (false, false));
}

/// JSON as it may be sent: members in any order, and repeated.
#[derive(Clone, Debug)]
enum RawJson {
    Text(String),
    List(Vec<RawJson>),
    Object(Vec<(String, RawJson)>),
}

impl From<&Value> for RawJson {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Into::into).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (json!(name).to_string(), value.into())).collect())
            }
            scalar => Self::Text(scalar.to_string()),
        }
    }
}

impl fmt::Display for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = |n: usize| if n == 0 { "" } else { "," };
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                items.iter().enumerate().try_for_each(|(n, item)| write!(f, "{}{item}", comma(n)))?;
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                let mut members = members.iter().enumerate();
                members.try_for_each(|(n, (name, value))| write!(f, "{}{name}:{value}", comma(n)))?;
                f.write_str("}")
            }
        }
    }
}

impl RawJson {
    /// Returns the `n`th value inside, counting this one as the first.
    fn nth_value(&mut self, n: &mut usize) -> Option<&mut Self> {
        if *n == 0 {
            return Some(self);
        }
        *n -= 1;
        match self {
            Self::Text(_) => None,
            Self::List(items) => items.iter_mut().find_map(|item| item.nth_value(n)),
            Self::Object(members) => members.iter_mut().find_map(|(_, value)| value.nth_value(n)),
        }
    }

    fn mutate(&mut self, change: &MutationStep) {
        let MutationStep { at, mutation, which } = change;
        let Some(place) = self.nth_value(&mut at.clone()) else { return };
        match (mutation, place) {
            (Mutation::Replace(text), place) => *place = Self::Text(text.clone()),
            (Mutation::Remove, Self::List(items)) if !items.is_empty() => drop(items.remove(which % items.len())),
            (Mutation::Remove, Self::Object(members)) if !members.is_empty() => {
                drop(members.remove(which % members.len()));
            }
            (Mutation::Duplicate, Self::List(items)) if !items.is_empty() => {
                items.push(items[which % items.len()].clone());
            }
            (Mutation::Duplicate, Self::Object(members)) if !members.is_empty() => {
                members.push(members[which % members.len()].clone());
            }
            (Mutation::Add(name, text), Self::Object(members)) => {
                members.push((name.clone(), Self::Text(text.clone())));
            }
            (Mutation::Rename(name), Self::Object(members)) if !members.is_empty() => {
                let n = which % members.len();
                members[n].0.clone_from(name);
            }
            _ => {}
        }
    }
}

#[derive(Clone, Debug)]
struct MutationStep {
    at: usize,
    mutation: Mutation,
    which: usize,
}

#[derive(Clone, Debug)]
enum Mutation {
    Replace(String),
    Remove,
    Duplicate,
    Add(String, String),
    Rename(String),
}

fn any_json() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "null",
        "true",
        "0",
        "-0",
        "-1",
        "1.0",
        "1e3",
        "1e400",
        "0.1",
        "9007199254740993",
        "9223372036854775808",
        "18446744073709551616",
        "\"\"",
        "\"x\"",
        "\" \"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"a b\"",
        "\"https://files.example.com/mcp\"",
        "\"https://FILES.example.com:443/mcp\"",
        "\"http://files.example.com\"",
        "\"mcp_tool\"",
        "\"tools/call\"",
        "\"tools/list\"",
        "\"resources/list\"",
        "\"01970000-0000-7000-8000-00000000000A\"",
        "[\"tools/list\"]",
        "[\"tools/list\",\"tools/list\"]",
        "[\"tools/list\",\"resources/list\"]",
        "[\"tools/call\"]",
        "{\"any\":true}",
        "{\"prefix\":\"/a\"}",
        "{\"one_of\":[1,1.0,\"a\"]}",
        "{\"x\":{\"max_length\":3}}",
        "[\"01970000-0000-7000-8000-00000000000a\",\"https://sts.example.com\",\"h\"]",
        "[\"a purpose\"]",
        "{\"a\":1,\"a\":1}",
        "{\"a\":1,\"\\u0061\":1}",
        "{\"a\":{\"b\":[{\"c\":1,\"c\":2}]}}",
        "x",
        "",
    ]);
    let deep = (20_usize..40, any::<bool>()).prop_map(|(depth, is_list)| {
        let (open, close) = if is_list { ("[", "]") } else { ("{\"a\":", "}") };
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    });
    prop_oneof![
        8 => scalar.prop_map(str::to_owned),
        1 => deep,
        1 => any::<f64>().prop_map(|number| format!("{number:e}")),
        1 => any::<String>().prop_map(|text| json!(text).to_string()),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "iss",
        "txn",
        "act",
        "sub",
        "acr",
        "grant",
        "break_glass",
        "may_act",
        "req_wl",
        "details",
        "type",
        "locations",
        "identifier",
        "constraints",
        "additional_arguments",
        "tool_digest",
        "actions",
        "equals",
        "prefix",
        "any",
        "more",
        "\\u0061ct",
        "",
    ])
    .prop_map(|name| format!("\"{name}\""))
}

fn any_mutation() -> impl Strategy<Value = MutationStep> {
    let mutation = prop_oneof![
        any_json().prop_map(Mutation::Replace),
        Just(Mutation::Remove),
        Just(Mutation::Duplicate),
        (any_name(), any_json()).prop_map(|(name, text)| Mutation::Add(name, text)),
        any_name().prop_map(Mutation::Rename),
    ];
    (0_usize..80, mutation, any::<usize>()).prop_map(|(at, mutation, which)| MutationStep { at, mutation, which })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn mutated_payload_is_read_as_the_value_reader_reads_it(
        changes in proptest::collection::vec(any_mutation(), 0..4),
        bytes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut sent = RawJson::from(&valid_claims());
        for change in &changes {
            sent.mutate(change);
        }
        let mut payload = sent.to_string().into_bytes();
        for (at, byte) in bytes {
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
        }
        assert_readers_agree(&payload);
    }
}
