//! Introspection, the revocation feed and the status lists agree about every token after every
//! change of the registry: of each member of each kind of object, by REST and by the file. What
//! introspection once refused stays refused when the change is reverted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    revocation::feed::FeedReplica,
    server::{
        ACCESS_TOKEN, Form, Server, TXN_TOKEN, decode_claims, form, form_with_changes, read_response, wait_until,
        with_changes,
    },
};

on_both_stores!(every_change_of_a_member_is_in_feed_and_lists, disabled_by_file_is_in_feed_and_lists);

const SHOP: &str = "https://shop.example.com/mcp";
/// How long tokens that no change ended are used again.
const MAX_TOKEN_AGE: Duration = Duration::from_secs(90);
const SECOND: &str = "https://second.example.com";

/// A registry of objects that the API manages, with tokens that all of them take part in.
struct World<'a> {
    server: &'a Server,
    other: &'a Server,
    secrets: BTreeMap<&'static str, String>,
    feed: FeedReplica,
}

fn issuer_body(server: &Server) -> Value {
    json!({"issuer": SECOND, "keys": {"inline": server.idp.jwks()}, "audiences": [server.issuer],
        "other_audiences": "accept", "algorithms": ["ES256"], "token_types": ["access_token", "jwt"],
        "claims": {"client": ["client_id"], "scope": "scope"}, "subject_prefix": "second:", "subject_scopes": "ceiling",
        "entitlements": [{"to": "everyone", "scopes": ["shop:use", "shop:list", "shop:break"], "tools": []}],
        "allowed_networks": ["10.0.0.0/8"], "consent": "destructive", "api_audiences": ["https://a.example"],
        "portal_clients": ["portal"], "disabled": false})
}

fn agent_body(id: &str) -> Value {
    let next = if id == "pilot" { json!(["copilot"]) } else { json!([]) };
    json!({"id": id, "name": "x", "kind": "agent", "authentication": {"method": "client_secret_basic"},
        "known_as": {SECOND: [format!("{id}-app")]},
        "access": [{"resource": "shop", "scopes": ["shop:use", "shop:list", "shop:break"], "tools": []}],
        "may_delegate_to": next, "max_token_lifetime": 300, "disabled": false})
}

fn tools(names: &[&str]) -> Value {
    let tool = |name: &&str| {
        let (scope, effect) = if *name == "burn" { ("shop:break", "destructive") } else { ("shop:use", "read") };
        json!({"name": name, "scope": scope, "effect": effect, "risk": "low", "data_class": "x"})
    };
    names.iter().map(tool).collect()
}

fn resource_body() -> Value {
    json!({"id": "shop", "uri": SHOP, "name": "x", "authentication": {"method": "client_secret_basic"},
        "tools": tools(&["buy", "look", "burn"]), "discovery_scope": "shop:list", "allowed_networks": ["10.0.0.0/8"],
        "catalogue_refresh": 3600, "max_token_lifetime": 300, "signing_algorithm": "ES256", "consent": "destructive",
        "break_glass": "allow", "disabled": false})
}

fn admin_body() -> Value {
    json!({"id": "boss", "role": "operator", "authentication": {"method": "client_secret_basic"}, "disabled": false})
}

/// Every object, with its path in the API.
fn objects(server: &Server) -> Vec<(String, Value)> {
    vec![
        ("/resources/shop".to_owned(), resource_body()),
        (format!("/issuers/{}", SECOND.replace(':', "%3A").replace('/', "%2F")), issuer_body(server)),
        ("/agents/copilot".to_owned(), agent_body("copilot")),
        ("/agents/pilot".to_owned(), agent_body("pilot")),
        ("/admins/boss".to_owned(), admin_body()),
    ]
}

/// Other values of each member. A member without a row fails the test.
fn other_values(path: &str, member: &str) -> Vec<Value> {
    let kind = path.split('/').nth(1).unwrap();
    match (kind, member) {
        (_, "disabled") => vec![json!(true)],
        ("admins", "role") => vec![json!("auditor")],
        ("agents", "kind") => vec![json!("broker")],
        ("agents", "known_as") => vec![json!({})],
        ("agents", "access") => vec![json!([]), json!([{"resource": "shop", "scopes": ["shop:list"]}])],
        ("agents", "may_delegate_to") | ("issuers", "entitlements") | (_, "allowed_networks") => vec![json!([])],
        ("resources", "uri") => vec![json!("https://moved.example.com/mcp")],
        ("resources", "tools") => vec![
            tools(&["look", "burn"]),
            tools(&["burn"]),
            tools(&["buy", "look"]),
            json!([{"name": "buy", "scope": "shop:use", "effect": "destructive"},
                {"name": "look", "scope": "shop:list", "effect": "write"},
                {"name": "burn", "scope": "shop:break", "effect": "destructive"}]),
        ],
        ("resources", "break_glass") | ("issuers", "other_audiences") => vec![json!("refuse")],
        ("resources", "signing_algorithm") => vec![json!(null), json!("RS256")],
        ("resources" | "issuers", "consent") => vec![json!("none"), json!("required")],
        ("issuers", "keys") => vec![json!({"jwks_uri": "https://second.example.com/keys"})],
        ("issuers", "audiences") => vec![json!(["https://x.example"])],
        // One of them must fit the inline keys.
        ("issuers", "algorithms") => vec![json!(["ES256", "RS256"])],
        ("issuers", "token_types") => vec![json!(["jwt"])],
        ("issuers", "claims") => vec![json!({"client": ["azp"], "scope": "scp"})],
        ("issuers", "subject_prefix") => vec![json!("other:")],
        ("issuers", "subject_scopes") => vec![json!("ignore")],
        ("issuers", "api_audiences") => vec![json!(["https://b.example"])],
        ("issuers", "portal_clients") => vec![json!(["other"])],
        (_, "name") => vec![json!("y"), json!(null)],
        (_, "max_token_lifetime") => vec![json!(60), json!(null)],
        (_, "catalogue_refresh") => vec![json!(null)],
        (_, "discovery_scope") => vec![json!(null), json!("shop:see")],
        // New credentials end API tokens alone, and another id is another object.
        (_, "authentication" | "id" | "issuer") => Vec::new(),
        other => panic!("{other:?}: name another value of this member"),
    }
}

impl<'a> World<'a> {
    async fn new(server: &'a Server, other: &'a Server) -> Self {
        let mut secrets = BTreeMap::new();
        for (path, body) in objects(server) {
            server.put_object(&path, body).await;
        }
        for client in ["shop", "pilot", "copilot", "boss"] {
            secrets.insert(client, server.create_secret(client).await);
        }
        // A break-glass grant, for the tool that needs consent.
        let burn = json!([{"type": "mcp_tool", "locations": [SHOP], "actions": ["tools/call"], "identifier": "burn"}]);
        let glass = json!({"issuer": SECOND, "subject": "second:alice", "agent": "pilot", "authorization_details": burn,
            "reason": "for the test"});
        let (status, body) = server.admin(Method::POST, "/break-glass", Some(glass)).await;
        assert_eq!(status, 201, "{body}");
        Self { server, other, secrets, feed: FeedReplica::default() }
    }

    async fn post(&self, at: &Server, client: &str, path: &str, form: &Form) -> (u16, Value) {
        let request = at.post(path).basic_auth(client, Some(&self.secrets[client])).form(form);
        let (status, body) = read_response(request.send().await.unwrap()).await;
        (status.as_u16(), body)
    }

    async fn issue(&self, client: &str, form: &Form) -> String {
        let (status, body) = self.post(self.server, client, "/oauth2/token", form).await;
        assert_eq!(status, 200, "{form:?}: {body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// Issues tokens that all parties take part in.
    async fn issue_tokens(&self) -> Vec<(&'static str, String)> {
        let user = |client: &str| {
            let scope = "shop:use shop:list shop:break";
            let user = json!({"iss": SECOND, "client_id": client, "scope": scope});
            form_with_changes(&self.server.exchange_form(&self.server.user_token(user)), &[("resource", SHOP)])
        };
        let ask = |form: &Form, scope: &str| form_with_changes(form, &[("scope", scope)]);
        let tool = |form: &Form, tool: &str| {
            let details = json!([{"type": "mcp_tool", "actions": ["tools/call"], "identifier": tool}]).to_string();
            form_with_changes(form, &[("scope", ""), ("authorization_details", &details)])
        };
        let both = self.issue("pilot", &ask(&user("pilot-app"), "shop:use")).await;
        let again = |token: &str| form_with_changes(&user("x"), &[("subject_token", token), ("purpose", "")]);
        let child = self.issue("pilot", &ask(&again(&both), "shop:use")).await;
        let hand_over = form_with_changes(&ask(&again(&both), "shop:use"), &[("requested_actor", "copilot")]);
        let hand_over = self.issue("pilot", &hand_over).await;
        let part = self.issue("copilot", &ask(&again(&hand_over), "shop:use")).await;
        let txn = [
            ("resource", ""),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", TXN_TOKEN),
            ("audience", "example.com"),
        ];
        let txn = self.issue("pilot", &form_with_changes(&ask(&again(&both), "shop:use"), &txn)).await;
        vec![
            ("child", child),
            ("part", part),
            ("txn", txn),
            ("buy", self.issue("pilot", &tool(&user("pilot-app"), "buy")).await),
            ("list", self.issue("pilot", &ask(&user("pilot-app"), "shop:list")).await),
            ("burn", self.issue("pilot", &tool(&user("pilot-app"), "burn")).await),
            ("copilot", self.issue("copilot", &ask(&user("copilot-app"), "shop:use")).await),
            ("both", both),
        ]
    }

    /// Checks that all three agree about each token, at both replicas. Returns the active ones.
    async fn active(&mut self, what: &str, tokens: &[(&'static str, String)]) -> Vec<&'static str> {
        let api = self.server.api_token("audit", "errand:audit").await;
        self.feed.catch_up(self.other, &api).await;
        let mut fresh = FeedReplica::default();
        fresh.catch_up(self.server, &api).await;
        let mut active = Vec::new();
        for (name, token) in tokens {
            let by_feed = self.feed.is_accepted(token);
            assert_eq!(fresh.is_accepted(token), by_feed, "{what}: {name}");
            // A transaction token is verified offline alone.
            for at in [self.server, self.other].into_iter().filter(|_| *name != "txn") {
                let (status, answer) = self.post(at, "shop", "/oauth2/introspect", &form(&[("token", token)])).await;
                // A disabled or relocated resource can't ask.
                let says = if status == 401 { false } else { answer["active"].as_bool().unwrap() };
                assert_eq!(by_feed, says, "{what}: the feed differs about {name}: {answer}");
                if says {
                    let details = Value::Array(self.feed.usable_details(token));
                    assert_eq!(answer["authorization_details"], details, "{what}: {name}");
                }
            }
            wait_until(&format!("{what}: the status of {name} is valid: {by_feed}"), || async {
                (self.server.status_of(token).await == 0) == by_feed
            })
            .await;
            active.extend(by_feed.then_some(*name));
        }
        active
    }

    async fn api_token(&self) -> String {
        self.issue("boss", &form(&[("grant_type", "client_credentials"), ("scope", "errand:admin")])).await
    }

    async fn may_administrate(&self, api: &str) -> bool {
        let by_first = self.server.admin_with(api, Method::GET, "/replicas", None).await.0;
        let by_second = self.other.admin_with(api, Method::GET, "/replicas", None).await.0;
        assert_eq!(by_first, by_second);
        by_first == 200
    }
}

async fn every_change_of_a_member_is_in_feed_and_lists(server: Server) {
    let other = server.replica().await;
    let mut world = World::new(&server, &other).await;
    let (mut endings, mut tokens, mut issued_at) = (BTreeMap::new(), Vec::new(), Instant::now());
    for (path, body) in objects(&server) {
        for member in body.as_object().unwrap().keys() {
            for value in other_values(&path, member) {
                let what = format!("{path} {member} = {value}");
                if tokens.is_empty() || issued_at.elapsed() > MAX_TOKEN_AGE {
                    (tokens, issued_at) = (world.issue_tokens().await, Instant::now());
                }
                let api = world.api_token().await;
                let all = tokens.iter().map(|(name, _)| *name).collect::<Vec<_>>();
                assert!(world.may_administrate(&api).await);
                let changed = with_changes(body.clone(), json!({(member.as_str()): value}));
                let (status, answer) = server.admin(Method::PUT, &path, Some(changed)).await;
                if status == 422 {
                    continue;
                }
                assert!(status.is_success(), "{what}: {answer}");
                let during = world.active(&what, &tokens).await;
                let was_admin = world.may_administrate(&api).await;
                server.put_object(&path, body.clone()).await;
                let after = world.active(&format!("after {what}"), &tokens).await;
                assert_eq!(after, during, "{what}: nothing comes to life again");
                assert_eq!(world.may_administrate(&api).await, was_admin, "{what}");
                if during.len() < all.len() || !was_admin {
                    endings.insert(what, all.len() - during.len());
                    tokens.clear();
                }
            }
        }
    }
    // Each kind of object can end tokens, or nothing was tested.
    let ends = |text: &str| endings.iter().find(|(what, _)| what.contains(text)).map(|(_, ended)| *ended);
    for (text, want) in [
        ("/issuers/https%3A%2F%2Fsecond.example.com disabled", Some(8)),
        ("/agents/pilot disabled", Some(7)),
        ("/agents/copilot disabled", Some(2)),
        ("/resources/shop disabled", Some(8)),
        ("/resources/shop uri", Some(8)),
        ("/resources/shop break_glass", Some(1)),
        ("/admins/boss disabled", Some(0)),
        ("/admins/boss role", Some(0)),
    ] {
        assert_eq!(ends(text), want, "{text}: {endings:?}");
    }
    other.stop().await;
    server.stop().await;
}

async fn disabled_by_file_is_in_feed_and_lists(server: Server) {
    let api = server.api_token("audit", "errand:audit").await;
    for (id, ended) in [
        ("id = \"planner\"", true),
        ("id = \"files\"", true),
        ("issuer = \"https://login.example.com\"", true),
        ("id = \"notes\"", false),
        ("id = \"audit\"", false),
    ] {
        let token = server.task_token().await;
        let of_audit = server.api_token("audit", "errand:audit").await;
        let disable = |text: String| text.replacen(&format!("{id}\n"), &format!("{id}\ndisabled = true\n"), 1);
        let during = server.restarted_anyway(disable).await;
        if id != "id = \"files\"" {
            assert_eq!(server.is_active(&token).await, !ended, "{id}");
        }
        let disabled = server.restarted_anyway(|text| text.replace("\ndisabled = true\n", "\n")).await;
        let mut feed = FeedReplica::default();
        feed.catch_up(&server, &server.api_token("ops", "errand:admin").await).await;
        for at in [&server, &during, &disabled] {
            assert_eq!(at.is_active(&token).await, !ended, "{id}");
        }
        assert_eq!(feed.is_accepted(&token), !ended, "{id}");
        wait_until(id, || async { (server.status_of(&token).await != 0) == ended }).await;
        let is_admin = server.admin_with(&of_audit, Method::GET, "/agents", None).await.0 == 200;
        assert_eq!(is_admin, !id.contains("audit"), "{id}");
        assert_eq!(decode_claims(&token)["sub"], "alice");
        for at in [during, disabled] {
            at.stop().await;
        }
    }
    assert_eq!(server.admin_with(&api, Method::GET, "/agents", None).await.0, 401);
    server.stop().await;
}
