//! Targets as clients name them, and where an admin may have documents fetched from.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{FILES, Server, decode_claims, form, form_with_changes, read_response, secret},
    support::TestStore,
};

const MORE: &str = r#"
[[resources]]
id = "cluster"
uri = "http://tools.default.svc.cluster.local/mcp"
uri_aliases = ["http://tools.default.svc.cluster.local/mcp/", "https://tools.example.com/mcp"]
allow_http = true
authentication = { method = "client_secret_basic", secret_file = "assistant.secret" }
tools = [{ name = "run", scope = "tools:run", effect = "read" }, { name = "stop", scope = "tools:run", effect = "read" }]

[[agents]]
id = "assistant"
authentication = { method = "private_key_jwt", jwks_file = "planner.json" }
known_as = { "https://login.example.com" = ["assistant-client"] }
access = [{ resource = "cluster", scopes = ["tools:run"] }]
"#;

const CLUSTER: &str = "http://tools.default.svc.cluster.local/mcp";
const ALIAS: &str = "https://tools.example.com/mcp";

impl Server {
    async fn try_target(&self, changes: &[(&str, &str)]) -> (u16, Value) {
        let token = self.user_token(json!({"client_id": "assistant-client", "scope": "tools:run"}));
        let exchange = form_with_changes(&self.exchange_form(&token), &[("scope", "tools:run"), ("resource", "")]);
        let assertion = self.assertion(json!({"iss": "assistant", "sub": "assistant"}));
        let (status, body) =
            self.post_with_assertion("/oauth2/token", &form_with_changes(&exchange, changes), &assertion).await;
        (status.as_u16(), body)
    }
}

async fn targets_are_found_by_alias_and_named_in_errors(store: TestStore) {
    let server = Server::start_with(store, MORE).await;
    let detail = |locations: Option<Value>| {
        let mut detail = json!({"type": "mcp_tool", "actions": ["tools/call"], "identifier": "run"});
        if let Some(locations) = locations {
            detail["locations"] = locations;
        }
        json!([detail]).to_string()
    };
    let slash = format!("{CLUSTER}/");
    for (name, changes) in [
        ("the URI", vec![("resource", CLUSTER)]),
        ("in another case", vec![("resource", "HTTP://Tools.default.svc.cluster.local:80/mcp")]),
        ("an alias", vec![("resource", ALIAS)]),
        ("an alias with a slash", vec![("resource", slash.as_str())]),
        ("the name", vec![("audience", "cluster")]),
        ("the URI as audience", vec![("audience", CLUSTER)]),
        ("an alias as audience", vec![("audience", ALIAS)]),
        ("both", vec![("audience", "cluster"), ("resource", ALIAS)]),
    ] {
        let (status, body) = server.try_target(&changes).await;
        assert_eq!(status, 200, "{name}: {body}");
        let claims = decode_claims(body["access_token"].as_str().unwrap());
        assert_eq!((&claims["aud"], &claims["scope"]), (&json!(CLUSTER), &json!("tools:run")), "{name}");
    }
    // Details may name the alias too. One tool of two is no scope, so there is none in the answer.
    for (resource, locations) in [
        (CLUSTER, None),
        (ALIAS, None),
        (ALIAS, Some(json!([ALIAS]))),
        (ALIAS, Some(json!([CLUSTER]))),
        (CLUSTER, Some(json!([ALIAS]))),
    ] {
        let details = detail(locations.clone());
        let changes = [("resource", resource), ("scope", ""), ("authorization_details", details.as_str())];
        let (status, body) = server.try_target(&changes).await;
        assert_eq!(status, 200, "{resource} {locations:?}: {body}");
        assert_eq!(body["authorization_details"][0]["locations"], json!([CLUSTER]));
        assert_eq!(body.get("scope"), None, "{body}");
        let claims = decode_claims(body["access_token"].as_str().unwrap());
        assert_eq!((&claims["aud"], claims.get("scope")), (&json!(CLUSTER), None));
    }
    // What an agent has access to is named, and nothing else.
    for (sent, nearest) in [
        ("http://tools.default.svc.cluster.local/mcp/v2", Some(CLUSTER)),
        ("https://tools.default.svc.cluster.local/mcp", Some(CLUSTER)),
        ("http://tools.default.svc.cluster.local", Some(CLUSTER)),
        ("https://files.example.com/mcp/", None),
        ("https://other.example.com/mcp", None),
    ] {
        for parameter in ["resource", "audience"] {
            let (status, body) = server.try_target(&[(parameter, sent)]).await;
            let description = body["error_description"].as_str().unwrap();
            assert_eq!((status, &body["error"]), (400, &json!("invalid_target")), "{sent}");
            let named = description.split_once("the nearest one that the client has access to is ");
            let named = named.and_then(|(_, rest)| rest.split(' ').next());
            assert_eq!(named, nearest, "{parameter} {sent}: {description}");
        }
    }
    let exchange = form_with_changes(
        &server.exchange_form(&server.user_token(json!({}))),
        &[("resource", "https://files.example.com/mcp/")],
    );
    let (_, body) = server.post_as_planner("/oauth2/token", &exchange).await;
    assert!(body["error_description"].as_str().unwrap().contains(FILES), "{body}");
    // An admin may name the alias too, and ends what was issued for the resource.
    let (_, body) = server.try_target(&[("resource", ALIAS)]).await;
    let token = form(&[("token", body["access_token"].as_str().unwrap())]);
    let is_active = async || {
        let request = server.post("/oauth2/introspect").basic_auth("cluster", Some(secret("assistant"))).form(&token);
        read_response(request.send().await.unwrap()).await.1["active"].clone()
    };
    assert_eq!(is_active().await, true);
    server.revoke(json!({"kind": "resource", "uri": ALIAS, "reason": "a test"})).await;
    assert_eq!(is_active().await, false);
    server.revoke(json!({"verb": "block", "kind": "resource", "uri": ALIAS, "reason": "a test"})).await;
    assert_eq!(server.try_target(&[("resource", CLUSTER)]).await.0, 400);
    server.stop().await;
}

/// The networks of `[fetch]` come from the file, and an admin may name only a part of them.
async fn admins_name_only_networks_of_the_file(store: TestStore) {
    let server = Server::start_edited(store, |text| {
        text.replace(
            "networks = [\"127.0.0.0/8\", \"10.0.0.0/8\"]",
            "networks = [\"10.0.0.0/9\", \"10.128.0.0/9\", \"fd00::/8\"]",
        )
    })
    .await;
    let issuer = |networks: Value| {
        json!({"issuer": "https://new.example", "keys": {"jwks_uri": "https://new.example/keys"}, "audiences": ["x"],
            "algorithms": ["ES256"], "token_types": ["access_token"], "subject_prefix": "n:", "allowed_networks": networks})
    };
    let resource = |networks: Value| {
        json!({"id": "new", "uri": "https://new.example/mcp", "authentication": {"method": "client_secret_basic"},
            "allowed_networks": networks})
    };
    for (networks, allowed) in [
        (json!([]), true),
        (json!(["10.1.0.0/16"]), true),
        (json!(["10.0.0.0/8"]), true),
        (json!(["10.1.2.3/32", "fd00:1::/32"]), true),
        (json!(["127.0.0.0/8"]), false),
        (json!(["10.1.0.0/16", "169.254.169.254/32"]), false),
        (json!(["0.0.0.0/0"]), false),
        (json!(["::/0"]), false),
        (json!(["::ffff:10.0.0.1/128"]), false),
    ] {
        for (path, body) in [
            ("/issuers/https%3A%2F%2Fnew.example", issuer(networks.clone())),
            ("/resources/new", resource(networks.clone())),
        ] {
            let (status, body) = server.admin(Method::PUT, path, Some(body)).await;
            assert_eq!(status.is_success(), allowed, "{path} {networks}: {body}");
            if !allowed {
                assert_eq!(status, 422);
                assert!(body["detail"].as_str().unwrap().contains("`[fetch]`"), "{body}");
            }
        }
    }
    // Plain http needs the consent of the entry, at both kinds of object.
    for (path, body, allowed) in [
        (
            "/resources/new",
            json!({"id": "new", "uri": "http://new.example/mcp", "authentication": {"method": "client_secret_basic"}}),
            false,
        ),
        (
            "/resources/new",
            json!({"id": "new", "uri": "http://new.example/mcp", "allow_http": true, "authentication": {"method": "client_secret_basic"}}),
            true,
        ),
        (
            "/issuers/http%3A%2F%2Fold.example",
            json!({"issuer": "http://old.example", "keys": "discovery", "audiences": ["x"],
            "algorithms": ["RS256"], "token_types": ["jwt"], "subject_prefix": "o:"}),
            false,
        ),
        (
            "/issuers/http%3A%2F%2Fold.example",
            json!({"issuer": "http://old.example", "keys": {"jwks_uri": "https://old.example/keys"},
            "audiences": ["x"], "algorithms": ["RS256"], "token_types": ["jwt"], "subject_prefix": "o:"}),
            true,
        ),
        (
            "/issuers/https%3A%2F%2Fin.example",
            json!({"issuer": "https://in.example", "keys": {"jwks_uri": "http://keys.svc/keys"},
            "audiences": ["x"], "algorithms": ["RS256"], "token_types": ["jwt"], "subject_prefix": "i:"}),
            false,
        ),
        (
            "/issuers/https%3A%2F%2Fin.example",
            json!({"issuer": "https://in.example", "keys": {"jwks_uri": "http://keys.svc/keys"},
            "audiences": ["x"], "algorithms": ["RS256"], "token_types": ["jwt"], "subject_prefix": "i:", "allow_http": true}),
            false,
        ),
        (
            "/issuers/https%3A%2F%2Fin.example",
            json!({"issuer": "https://in.example", "keys": {"jwks_uri": "http://keys.svc/keys"},
            "audiences": ["x"], "algorithms": ["RS256"], "token_types": ["jwt"], "subject_prefix": "i:", "allow_http": true,
            "allowed_networks": ["10.1.0.0/16"]}),
            true,
        ),
    ] {
        let shown = body.to_string();
        let (status, body) = server.admin(Method::PUT, path, Some(body)).await;
        assert_eq!(status.is_success(), allowed, "{shown}: {body}");
    }
    server.stop().await;
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread")]
    async fn targets_are_found_by_alias_and_named_in_errors() {
        super::targets_are_found_by_alias_and_named_in_errors(crate::support::TestStore::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn admins_name_only_networks_of_the_file() {
        super::admins_name_only_networks_of_the_file(crate::support::TestStore::sqlite().await).await;
    }
}
