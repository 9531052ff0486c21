//! Inconsistent registries, with the error texts that an operator reads.

mod ceilings;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

const LOGIN: &str = "https://login.example.com";
const PARTNER: &str = "https://partner.example.com";

/// The networks of an object that admins registered are narrowed. Nothing else of it changes: a
/// blocked object stays blocked.
#[test]
fn narrowed_networks_keep_blocks() {
    let object = |kind: &str, body: Value| {
        let object = serde_json::from_value(json!({"kind": kind, "body": body})).unwrap();
        Entry { object, source: Source::Api }
    };
    let networks = ["10.0.0.0/8", "192.168.0.0/16"];
    let entries = vec![
        object(
            "issuer",
            json!({"issuer": LOGIN, "keys": "discovery", "audiences": ["x"], "algorithms": ["RS256"],
                "token_types": ["access_token"], "allowed_networks": networks}),
        ),
        object(
            "resource",
            json!({"id": "files", "uri": "https://files.example.com/mcp", "allowed_networks": networks,
                "authentication": {"method": "client_secret_basic"}}),
        ),
    ];
    let block = |kind, id: &str| Block {
        subject: BlockSubject::Object(kind, id.to_owned()),
        kind: BlockKind::Blocked,
        reason: "x".parse().unwrap(),
        by: "admin:ops".to_owned(),
        at: crate::domain::time::Timestamp::EPOCH,
    };
    let blocks = || vec![block(ObjectKind::Issuer, LOGIN), block(ObjectKind::Resource, "files")];
    for allowed in [vec![], vec!["10.0.0.0/8".parse().unwrap()]] {
        let registry = Registry::build(1, entries.clone(), BTreeMap::new()).unwrap();
        let registry = registry.with_blocks(blocks()).within_networks(&allowed);
        let (issuer, resource) =
            (registry.issuer(LOGIN).unwrap(), registry.resource(&"files".parse().unwrap()).unwrap());
        assert!(issuer.disabled && resource.disabled, "{allowed:?}");
        assert_eq!((&issuer.allowed_networks, &resource.allowed_networks), (&allowed, &allowed));
    }
}

/// Objects by name; each row changes one of them.
type ObjectMap = BTreeMap<&'static str, Value>;

fn consistent_objects() -> ObjectMap {
    let secret = json!({"method": "client_secret_basic"});
    let issuer = |url: &str, prefix: Option<&str>| {
        json!({"issuer": url, "keys": "discovery", "audiences": ["https://sts.example.com"], "algorithms": ["RS256"],
            "token_types": ["access_token"], "subject_prefix": prefix})
    };
    let tool = |name: &str, scope: &str| json!({"name": name, "scope": scope, "effect": "read"});
    [
        ("issuer login", issuer(LOGIN, None)),
        ("issuer partner", issuer(PARTNER, Some("partner:"))),
        (
            "agent planner",
            json!({"id": "planner", "authentication": secret, "known_as": {LOGIN: ["planner-app"]},
                "access": [{"resource": "files", "scopes": ["s:read"], "tools": ["drop"]}], "may_delegate_to": ["reader"]}),
        ),
        ("agent reader", json!({"id": "reader", "authentication": secret, "known_as": {LOGIN: ["reader-app"]}})),
        (
            "resource files",
            json!({"id": "files", "uri": "https://files.example.com/mcp", "authentication": secret, "tools":
                [tool("read", "s:read"), tool("list", "s:read"), tool("write", "s:write"), tool("drop", "s:drop")]}),
        ),
        (
            "resource mail",
            json!({"id": "mail", "uri": "https://mail.example.com/mcp", "authentication": secret, "tools":
                [tool("read", "s:read"), tool("send", "s:send")]}),
        ),
        ("admin ops", json!({"id": "ops", "role": "operator", "authentication": secret})),
    ]
    .into()
}

fn build(objects: ObjectMap) -> Result<Registry, Vec<String>> {
    let entries = objects.into_iter().map(|(name, body)| {
        let kind = name.split(' ').next().unwrap();
        let object = serde_json::from_value(json!({"kind": kind, "body": body})).unwrap();
        Entry { object, source: Source::File }
    });
    let built = Registry::build(1, entries.collect(), BTreeMap::new());
    built.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn errors_after(change: impl FnOnce(&mut ObjectMap)) -> Vec<String> {
    let mut objects = consistent_objects();
    change(&mut objects);
    build(objects).err().unwrap_or_default()
}

/// Sets one key of one object and returns the resulting errors.
fn errors_with(object: &'static str, key: &str, value: Value) -> Vec<String> {
    errors_after(|objects| objects.get_mut(object).unwrap()[key] = value)
}

#[test]
fn consistent_registry_is_accepted() {
    assert_eq!(errors_after(|_| {}), [""; 0]);
    let empty = Registry::build(0, Vec::new(), BTreeMap::new()).unwrap();
    assert!(empty.catalogue(|_| true).is_empty());
}

#[test]
fn duplicate_name_is_rejected() {
    let duplicate =
        |name: &str| format!("{name}: id: duplicate client id; agents, resources and admins share one namespace");
    assert_eq!(errors_with("agent reader", "id", json!("planner"))[..1], [duplicate("agent `planner`")]);
    assert_eq!(errors_with("resource mail", "id", json!("planner")), [duplicate("resource `planner`")]);
    // The error names the object that was added second.
    assert_eq!(errors_with("admin ops", "id", json!("planner")), [duplicate("agent `planner`")]);
    assert_eq!(
        errors_with("issuer partner", "issuer", json!(LOGIN)),
        ["issuer `https://login.example.com`: issuer: duplicate issuer"]
    );
    for uri in ["https://files.example.com/mcp", "https://FILES.example.com:443/mcp"] {
        assert_eq!(
            errors_with("resource mail", "uri", json!(uri)),
            ["resource `mail`: uri: another resource has the same canonical URI"],
            "{uri}"
        );
    }
    assert_eq!(errors_with("resource mail", "uri", json!("https://files.example.com/mcp/")), [""; 0]);
}

#[test]
fn reserved_name_is_rejected() {
    for id in ["errand", "errand-mail", "ERRAND.mail", "errands"] {
        for (kind, object) in [("resource", "resource mail"), ("agent", "agent planner"), ("admin", "admin ops")] {
            assert_eq!(
                errors_with(object, "id", json!(id)),
                [format!("{kind} `{id}`: id: client ids beginning with `errand` are reserved")],
            );
        }
    }
    assert_eq!(errors_with("resource mail", "id", json!("my-errand")), [""; 0]);
}

#[test]
fn overlapping_subject_prefixes_are_rejected() {
    let collide = |prefix: Value, other: Value| {
        errors_after(|objects| {
            objects.get_mut("issuer partner").unwrap()["subject_prefix"] = prefix;
            objects.get_mut("issuer login").unwrap()["subject_prefix"] = other;
        })
    };
    let text = "issuer `https://partner.example.com`: subject_prefix: subjects could collide with those of `https://login.example.com`; give one of the two issuers a prefix that does not begin the other's";
    for (prefix, other) in [
        (Value::Null, Value::Null),
        (json!(""), Value::Null),
        (json!("a:"), json!("a:")),
        (json!("a"), json!("ab:")),
        (json!("ab:"), json!("a")),
    ] {
        assert_eq!(collide(prefix.clone(), other.clone()), [text], "{prefix} {other}");
    }
    for (prefix, other) in
        [(json!("a:"), Value::Null), (json!("a:"), json!("")), (json!("a:"), json!("A:")), (json!("ab"), json!("ac"))]
    {
        assert_eq!(collide(prefix.clone(), other.clone()), [""; 0], "{prefix} {other}");
    }
    let text =
        "issuer `https://partner.example.com`: subject_prefix: must be at most 64 bytes without control characters";
    for prefix in ["a\n", "\u{0}", &"x".repeat(65), &"é".repeat(33)] {
        assert_eq!(errors_with("issuer partner", "subject_prefix", json!(prefix)), [text], "{prefix}");
    }
    assert_eq!(errors_with("issuer partner", "subject_prefix", json!("x".repeat(64))), [""; 0]);
}

#[test]
fn issuer_without_required_settings_is_rejected() {
    let one = |key: &str, value: Value, text: &str| {
        let got = errors_with("issuer login", key, value);
        assert_eq!(got, [format!("issuer `{LOGIN}`: {text}")]);
    };
    one("algorithms", json!([]), "algorithms: name at least one, such as \"RS256\"");
    one("token_types", json!([]), "token_types: name at least one of \"access_token\", \"jwt\", \"id_token\"");
    let audience = "audiences: name the `aud` of access tokens for this server";
    one("audiences", json!([]), audience);
    one("audiences", json!([""]), audience);
    let ignore = "subject_scopes: \"ignore\" needs at least one entitlement rule; otherwise nothing defines what its users may have";
    one("subject_scopes", json!("ignore"), ignore);
    let rule = |more: Value| {
        let mut rule = json!({"to": "everyone"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([rule])
    };
    one(
        "entitlements",
        rule(json!({"resource": "gone", "tools": ["x"]})),
        "entitlements: resource `gone` does not exist",
    );
    one(
        "entitlements",
        rule(json!({"resource": "reader", "tools": ["x"]})),
        "entitlements: resource `reader` does not exist",
    );
    one("entitlements", rule(json!({"resource": "mail"})), "entitlements: a rule names neither scopes nor tools");
    let id_tokens = errors_after(|objects| {
        let login = objects.get_mut("issuer login").unwrap();
        (login["token_types"], login["audiences"]) = (json!(["id_token"]), json!([]));
    });
    assert_eq!(id_tokens, [""; 0], "an ID token's audience is the agent");
}

#[test]
fn issuer_key_url_must_be_https_or_allowed_loopback() {
    const HTTPS_REASON: Option<&str> = Some("https is required");
    const HTTP_REASON: Option<&str> =
        Some("https is required; http needs `allow_http = true` and the network in `allowed_networks`");
    const LOOPBACK_REASON: Option<&str> =
        Some("the keys are on a loopback address, which is refused by default; name the network in `allowed_networks`");
    const URL_PARTS_REASON: Option<&str> = Some("user information and fragments are not allowed in the URL");
    for (uri, networks, want) in [
        ("https://login.example.com/keys", json!([]), None),
        ("https://login.example.com/keys?tenant=a", json!([]), None),
        ("http://login.example.com/keys", json!([]), HTTP_REASON),
        ("http://login.example.com/keys", json!(["0.0.0.0/0"]), HTTP_REASON),
        ("http://10.0.0.7/keys", json!(["10.0.0.0/8"]), HTTP_REASON),
        ("http://localhost.example.com/keys", json!(["127.0.0.0/8"]), HTTP_REASON),
        ("http://127.0.0.1.example.com/keys", json!(["127.0.0.0/8"]), HTTP_REASON),
        ("file:///etc/passwd", json!([]), HTTPS_REASON),
        ("data:application/json,{}", json!([]), HTTPS_REASON),
        ("ftp://login.example.com/keys", json!([]), HTTPS_REASON),
        ("https://user:s3cret@login.example.com/keys", json!([]), URL_PARTS_REASON),
        ("https://user@login.example.com/keys", json!([]), URL_PARTS_REASON),
        ("https://login.example.com/keys#a", json!([]), URL_PARTS_REASON),
        ("http://127.0.0.1:9000/keys", json!([]), LOOPBACK_REASON),
        ("http://127.0.0.1:9000/keys", json!(["10.0.0.0/8"]), LOOPBACK_REASON),
        ("http://127.0.0.1:9000/keys", json!(["127.0.0.0/8"]), None),
        ("http://127.0.0.9:9000/keys", json!(["127.0.0.1/32"]), LOOPBACK_REASON),
        ("http://2130706433/keys", json!(["127.0.0.1/32"]), None),
        ("http://[::1]:9000/keys", json!(["127.0.0.0/8"]), LOOPBACK_REASON),
        ("http://[::1]:9000/keys", json!(["::1/128"]), None),
        ("http://localhost:9000/keys", json!([]), LOOPBACK_REASON),
        ("http://localhost:9000/keys", json!(["127.0.0.1/32"]), None),
        ("https://localhost:9000/keys", json!([]), LOOPBACK_REASON),
    ] {
        let got = errors_after(|objects| {
            let login = objects.get_mut("issuer login").unwrap();
            (login["keys"], login["allowed_networks"]) = (json!({"jwks_uri": uri}), networks.clone());
        });
        let want = want.map(|reason| format!("issuer `{LOGIN}`: keys: {reason}"));
        assert_eq!(got, Vec::from_iter(want), "{uri} {networks}");
    }
    // An issuer with metadata discovery has the same restriction; one with inline keys is not
    // fetched from.
    let local = |keys: Value, networks: Value| {
        errors_after(|objects| {
            objects.remove("agent planner");
            objects.remove("agent reader");
            let login = objects.get_mut("issuer login").unwrap();
            login["issuer"] = "http://127.0.0.1:9000".into();
            (login["keys"], login["allowed_networks"]) = (keys, networks);
        })
    };
    let here = format!("issuer `http://127.0.0.1:9000`: keys: {}", LOOPBACK_REASON.unwrap());
    assert_eq!(local(json!("discovery"), json!([])), [here]);
    assert_eq!(local(json!("discovery"), json!(["127.0.0.0/8"])), [""; 0]);
    let at_issuer = |key: &Value, algorithms: &[&str]| {
        errors_after(|objects| {
            let login = objects.get_mut("issuer login").unwrap();
            (login["keys"], login["algorithms"]) = (json!({"inline": {"keys": [key]}}), json!(algorithms));
        })
    };
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    assert_eq!(at_issuer(&key, &["EdDSA"]), [""; 0]);
    let no_key = "keys: no key fits `algorithms`; list the algorithms of these keys in `algorithms`";
    assert_eq!(at_issuer(&key, &["RS256"]), [format!("issuer `{LOGIN}`: {no_key}")]);
}

/// A key is checked where a client is registered with it, with the reason.
#[test]
fn unsafe_public_key_is_rejected() {
    let point = |x: &str, y: &str| json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
    let rsa = |n: &str, e: &str| json!({"kty": "RSA", "n": n, "e": e});
    let zero = "A".repeat(43);
    for (key, reason) in [
        (json!({"kty": "OKP", "crv": "Ed25519", "x": format!("AQ{}", "A".repeat(41))}), "the point has a small order"),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "_".repeat(42) + "8"}), "the point is not encoded canonically"),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": format!("Ag{}", "A".repeat(41))}),
            "the point is not on the curve",
        ),
        (point(&zero, &zero), "the point is not on the curve"),
        (point(&"A".repeat(42), &zero), "`x` must "),
        (rsa(&"_".repeat(168), "AQAB"), "the modulus `n` must have at least 2048 bits"),
        (rsa(&("_".repeat(341) + "w"), "AQ"), "the exponent `e` must be at least 3"),
    ] {
        for method in ["inline", "jwks"] {
            let errors = errors_after(|objects| {
                let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, key]});
                if method == "inline" {
                    let login = objects.get_mut("issuer login").unwrap();
                    (login["keys"], login["algorithms"]) = (json!({"inline": jwks}), json!(["EdDSA"]));
                } else {
                    objects.get_mut("agent reader").unwrap()["authentication"] =
                        json!({"method": "private_key_jwt", "jwks": jwks});
                }
            });
            let begins = match method {
                "inline" => format!("issuer `{LOGIN}`: keys: `keys[1]`: {reason}"),
                _ => format!("agent `reader`: authentication: `keys[1]`: {reason}"),
            };
            assert!(matches!(errors.as_slice(), [error] if error.starts_with(&begins)), "{key} {errors:?}");
        }
    }
}

#[test]
fn agent_referring_to_unknown_object_is_rejected() {
    let one = |key: &str, value: Value, text: &str| {
        assert_eq!(errors_with("agent reader", key, value), [format!("agent `reader`: {text}")]);
    };
    let access = |value: Value| json!([value]);
    one("access", access(json!({"resource": "gone", "scopes": ["s:read"]})), "access: resource `gone` does not exist");
    one("access", access(json!({"resource": "files"})), "access: names neither scopes nor tools of `files`");
    one(
        "access",
        access(json!({"resource": "files", "scopes": ["s:read", "s:send"]})),
        "access: no tool of `files` has the scope `s:send`",
    );
    one("access", access(json!({"resource": "files", "tools": ["send"]})), "access: `files` has no tool `send`");
    one("may_delegate_to", json!(["gone"]), "may_delegate_to: agent `gone` does not exist");
    one("may_delegate_to", json!(["files"]), "may_delegate_to: agent `files` does not exist");
    one("may_delegate_to", json!(["reader"]), "may_delegate_to: an agent can't delegate to itself");
    one(
        "known_as",
        json!({"https://login.example.com/": ["x"]}),
        "known_as: issuer `https://login.example.com/` does not exist; did you mean `https://login.example.com`? Issuers are compared character by character",
    );
    one(
        "known_as",
        json!({"https://login.example.org": ["x"]}),
        "known_as: issuer `https://login.example.org` does not exist",
    );
    one("known_as", json!({LOGIN: ["reader-app", ""]}), "known_as: empty client id for `https://login.example.com`");
    one(
        "known_as",
        json!({LOGIN: ["reader-app", "planner-app"]}),
        "known_as: `planner-app` at `https://login.example.com` already identifies `planner`",
    );
    one(
        "known_as",
        json!({LOGIN: ["reader-app", "https://sts.example.com"]}),
        "known_as: names an audience of this server; every user token would then be intended for the agent",
    );
    for names in
        [json!({PARTNER: ["planner-app"]}), json!({LOGIN: ["Planner-App", "planner"]}), json!({LOGIN: ["x", "x"]})]
    {
        assert_eq!(errors_with("agent reader", "known_as", names.clone()), [""; 0], "{names}");
    }
}

#[test]
fn edge_with_unknown_agent_empty_access_or_invalid_depth_is_rejected() {
    let one = |edge: Value, text: &str| {
        assert_eq!(
            errors_with("agent planner", "may_delegate_to", edge.clone()),
            [format!("agent `planner`: may_delegate_to: {text}")],
            "{edge}"
        );
    };
    let with = |access: Value| json!([{"agent": "reader", "access": access}]);
    one(json!([{"agent": "gone", "depth": 1}]), "agent `gone` does not exist");
    one(json!([{"agent": "planner"}]), "an agent can't delegate to itself");
    one(json!(["reader", {"agent": "reader", "depth": 2}]), "duplicate agent `reader`");
    for depth in [0, 8, 255] {
        one(json!([{"agent": "reader", "depth": depth}]), "the depth for `reader` must be 1 to 7");
    }
    one(with(json!([])), "`access` for `reader` is empty");
    one(with(json!([{"resource": "gone", "tools": ["x"]}])), "resource `gone` does not exist");
    one(with(json!([{"resource": "files"}])), "names neither scopes nor tools of `files`");
    one(with(json!([{"resource": "files", "scopes": ["s:none"]}])), "no tool of `files` has the scope `s:none`");
    one(
        with(json!([{"resource": "files", "tools": [{"identifier": "gone", "constraints": {"a": {"max": 1}}}]}])),
        "`files` has no tool `gone`",
    );
    one(
        with(
            json!([{"resource": "files", "scopes": ["s:read"], "tools": [{"identifier": "read", "constraints": {"a": {"max": 1}}}]}]),
        ),
        "the constraints for `read` of `files` have no effect; another entry allows every call of it",
    );
    for good in [
        json!([{"agent": "reader"}]),
        json!([{"agent": "reader", "depth": 1}]),
        with(json!([{"resource": "mail", "tools": ["send"]}])),
    ] {
        assert_eq!(errors_with("agent planner", "may_delegate_to", good.clone()), [""; 0], "{good}");
    }
    // An identity provider does not know a broker.
    assert_eq!(
        errors_with("agent reader", "kind", json!("broker")),
        ["agent `reader`: known_as: a broker opens no tasks and receives no user tokens"]
    );
}

/// A constraint that another entry makes ineffective is reported, because the operator meant it to
/// have effect.
#[test]
fn rules_without_effect_are_rejected() {
    let rule = |tool: &str| json!({"identifier": tool, "constraints": {"a": {"max": 1}}});
    let reason = |tool: &str| {
        format!("the constraints for `{tool}` of `files` have no effect; another entry allows every call of it")
    };
    for (access, want) in [
        (json!([{"resource": "files", "tools": [rule("drop"), "drop"]}]), Some(reason("drop"))),
        (json!([{"resource": "files", "scopes": ["s:read"], "tools": [rule("list")]}]), Some(reason("list"))),
        (
            json!([{"resource": "files", "tools": [rule("drop")]}, {"resource": "files", "scopes": ["s:drop"]}]),
            Some(reason("drop")),
        ),
        (json!([{"resource": "files", "scopes": ["s:write"], "tools": [rule("list"), rule("drop")]}]), None),
        (json!([{"resource": "files", "tools": [rule("read")]}, {"resource": "mail", "scopes": ["s:read"]}]), None),
    ] {
        let want = want.map(|reason| format!("agent `planner`: access: {reason}"));
        assert_eq!(errors_with("agent planner", "access", access.clone()), Vec::from_iter(want), "{access}");
    }
    let give = |rules: Value| errors_with("issuer login", "entitlements", rules);
    let want = format!("issuer `{LOGIN}`: entitlements: {}", reason("read"));
    assert_eq!(
        give(json!([{"to": "everyone", "resource": "files", "scopes": ["s:read"], "tools": [rule("read")]}])),
        std::slice::from_ref(&want)
    );
    // The tool is under the scope at both resources.
    let both = give(json!([{"to": "everyone", "scopes": ["s:read"], "tools": [rule("read")]}]));
    assert_eq!(both, [want.clone(), want.replace("files", "mail")]);
    // A rule for some users may allow more than the rule for everyone.
    let apart = json!([{"to": "everyone", "tools": [rule("read")]},
        {"to": {"claim": {"name": "groups", "value": "x"}}, "scopes": ["s:read"]}]);
    assert_eq!(give(apart), [""; 0]);
}

#[test]
fn invalid_lifetime_algorithms_or_tools_are_rejected() {
    for (object, kind, id) in [("agent reader", "agent", "reader"), ("resource mail", "resource", "mail")] {
        for life in [0, 9, 901, u32::MAX] {
            assert_eq!(
                errors_with(object, "max_token_lifetime", json!(life)),
                [format!("{kind} `{id}`: max_token_lifetime: must be 10 to 900 seconds")],
            );
        }
        for life in [10, 900] {
            assert_eq!(errors_with(object, "max_token_lifetime", json!(life)), [""; 0]);
        }
    }
    let keyless = json!({"method": "private_key_jwt", "jwks": {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}, "algorithms": []});
    for (object, name) in
        [("agent reader", "agent `reader`"), ("resource mail", "resource `mail`"), ("admin ops", "admin `ops`")]
    {
        assert_eq!(
            errors_with(object, "authentication", keyless.clone()),
            [format!("{name}: authentication: name at least one algorithm; otherwise no assertion can be accepted")],
        );
    }
    let tool = |scope: &str| json!({"name": "read", "scope": scope, "effect": "read"});
    assert_eq!(
        errors_with("resource mail", "tools", json!([tool("a"), tool("b")])),
        ["resource `mail`: tools: two tools have the same name"]
    );
    assert_eq!(
        errors_with("resource mail", "discovery_scope", json!("s:send")),
        ["resource `mail`: discovery_scope: is also the scope of a tool; listing must not permit calling"]
    );
    // Another resource may share the value, because a token is for one resource.
    assert_eq!(errors_with("resource mail", "discovery_scope", json!("s:write")), [""; 0]);
    for (pace, ok) in [(59, false), (60, true), (86_400, true), (86_401, false), (0, false)] {
        assert_eq!(errors_with("resource mail", "catalogue_refresh", json!(pace)).is_empty(), ok, "{pace}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let all = errors_after(|objects| {
        objects.get_mut("issuer login").unwrap()["algorithms"] = json!([]);
        objects.get_mut("agent reader").unwrap()["may_delegate_to"] = json!(["gone", "reader"]);
        objects.get_mut("resource mail").unwrap()["max_token_lifetime"] = json!(1);
    });
    assert_eq!(all.len(), 4, "{all:#?}");
}
