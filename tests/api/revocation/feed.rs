//! The revocation feed: a subscriber has the same standing of every token as the server, misses no
//! entry, and learns no names of other parties.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use reqwest::{Method, Response, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    idp::b64,
    server::{FILES, IDP, NOTES, Server, decode_claims, form, form_with_changes, read_response},
    support::TestStore,
};

on_both_stores!(
    follower_agrees_with_introspection,
    subscriber_sees_only_hashed_keys_in_its_scope,
    long_poll_returns_on_new_entry,
    stream_resumes_from_last_event_id,
    concurrent_subscribers_miss_no_entry,
    stream_ends_when_authorization_ends,
    stream_ends_on_shutdown,
    feed_requires_revocations_scope,
    invalid_position_is_rejected,
    subscriber_count_is_limited,
    lagging_subscriber_skips_expired_entries,
    resuming_from_any_entry_returns_the_rest,
);

const SCOPE: &str = "errand:revocations";
/// How many revokers run concurrently, and how often each of them revokes.
const WRITER_COUNT: u64 = 4;
const REVOCATIONS_PER_WRITER: u64 = 30;
/// More log positions than are sent one by one to a subscriber that lags far behind.
const BACKLOG_ENTRIES: u64 = 10_500;

/// The offline verifier of docs/guides/offline-verification.md.
#[derive(Default)]
pub struct FeedReplica {
    held: HashMap<(String, String), (u64, &'static str)>,
    /// The keys of suspended agents and tools, with their kind.
    suspended: BTreeSet<(String, String)>,
    up_to: u64,
}

impl FeedReplica {
    fn apply(&mut self, entry: &Value) {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        let (name, seq) = ((text("kind"), text("key")), entry["seq"].as_u64().unwrap());
        // An agent and a tool have two independent entries: the end of tokens, and the suspension.
        match (name.0.as_str(), entry["verb"].as_str().unwrap()) {
            ("agent" | "agents" | "tool", "suspend") => {
                self.suspended.insert(name);
                return;
            }
            ("agent" | "agents" | "tool", "resume") => {
                self.suspended.remove(&name);
                return;
            }
            _ => {}
        }
        let is_ended = self.held.get(&name).is_some_and(|(_, state)| *state == "revoked");
        match entry["verb"].as_str().unwrap() {
            "revoke" => drop(self.held.insert(name, (seq, "revoked"))),
            _ if is_ended => {}
            "suspend" => drop(self.held.insert(name, (seq, "suspended"))),
            "resume" => drop(self.held.remove(&name)),
            other => panic!("{other}"),
        }
    }

    pub fn is_accepted(&self, token: &str) -> bool {
        let claims = decode_claims(token);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rev = claims["rev"].as_u64().unwrap();
        let tokens = [&claims["jti"]].into_iter().chain(claims["lineage"].as_array().unwrap());
        let grant = claims["grant"].as_str().map(|id| ("grant", id.to_owned()));
        let named = tokens.map(|id| ("token", text(id))).chain([("task", text(&claims["txn"]))]).chain(grant);
        let mut agents = BTreeSet::from([text(&claims["client_id"])]);
        let mut hop = &claims["act"];
        while hop.is_object() {
            if hop["iss"] == claims["iss"] {
                agents.insert(text(&hop["sub"]));
            }
            hop = &hop["act"];
        }
        let is_held_back = self.suspended.contains(&("agents".to_owned(), String::new()))
            || agents.iter().any(|agent| self.suspended.contains(&("agent".to_owned(), hashed_key("agent", agent))));
        let (sub, sub_iss) = (text(&claims["sub"]), text(&claims["sub_iss"]));
        let older = agents
            .clone()
            .into_iter()
            .map(|agent| ("agent", agent))
            .chain([("requester", format!("{sub_iss} {sub}")), ("issuer", sub_iss.clone())]);
        // A transaction token is for the trust domain, and names resources in its details alone.
        let details = claims["authorization_details"].as_array().unwrap().iter();
        let resources = details.map(|detail| text(&detail["locations"][0])).chain([text(&claims["aud"])]);
        let resources = resources.collect::<BTreeSet<_>>();
        let is_broken = claims["break_glass"] == true;
        let broken = resources.iter().filter(|_| is_broken).map(|uri| ("break_glass", uri.clone()));
        let broken = broken.chain(resources.iter().map(|uri| ("resource", uri.clone())));
        let by_requester = agents.iter().map(|agent| ("delegation", format!("{agent} {sub_iss} {sub}")));
        let older = by_requester.collect::<Vec<_>>().into_iter().chain(older).chain(broken);
        let is_held = |kind: &str, key: String| self.held.get(&(kind.to_owned(), key)).map(|(seq, _)| *seq);
        !(is_held_back
            || self.usable_details(token).is_empty()
            || named.into_iter().any(|(kind, key)| is_held(kind, key).is_some())
            || older
                .into_iter()
                .any(|(kind, name)| is_held(kind, hashed_key(kind, &name)).is_some_and(|seq| rev < seq)))
    }

    /// Returns what a token is for, without the tools that the feed ended or suspended.
    pub fn usable_details(&self, token: &str) -> Vec<Value> {
        let claims = decode_claims(token);
        let rev = claims["rev"].as_u64().unwrap();
        let is_usable = |detail: &&Value| {
            let Some(tool) = detail["identifier"].as_str() else { return true };
            let name = format!("{} {tool}", detail["locations"][0].as_str().unwrap());
            let key = ("tool".to_owned(), hashed_key("tool", &name));
            !self.suspended.contains(&key) && self.held.get(&key).is_none_or(|(seq, _)| rev >= *seq)
        };
        claims["authorization_details"].as_array().unwrap().iter().filter(is_usable).cloned().collect()
    }

    pub async fn catch_up(&mut self, at: &Server, api: &str) {
        loop {
            let page = read_page(at, api, &format!("?after={}", self.up_to)).await;
            for entry in page["entries"].as_array().unwrap() {
                assert!(entry["seq"].as_u64().unwrap() > self.up_to, "{page}");
                self.apply(entry);
            }
            self.up_to = page["up_to"].as_u64().unwrap();
            if page["up_to"] == page["head"] {
                return;
            }
        }
    }
}

fn hashed_key(kind: &str, name: &str) -> String {
    b64(digest(&SHA256, format!("{kind} {name}").as_bytes()))
}

async fn request_page(at: &Server, api: &str, query: &str) -> (StatusCode, Value) {
    let request = at.request(Method::GET, &format!("/revocations{query}")).bearer_auth(api);
    read_response(request.send().await.unwrap()).await
}

async fn read_page(at: &Server, api: &str, query: &str) -> Value {
    let (status, body) = request_page(at, api, query).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn head_position(at: &Server, api: &str) -> u64 {
    let mut follower = FeedReplica::default();
    follower.catch_up(at, api).await;
    follower.up_to
}

/// An open stream, read event by event.
struct EventStream {
    response: Response,
    text: String,
}

impl EventStream {
    async fn open(at: &Server, api: &str, query: &str, last: Option<u64>) -> Self {
        let request = at.request(Method::GET, &format!("/revocations{query}")).bearer_auth(api);
        let request = request.header("accept", "text/event-stream");
        let request = match last {
            Some(last) => request.header("last-event-id", last.to_string()),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new() }
    }

    /// Returns the next event: name, id and data. `None` at the end.
    async fn next(&mut self) -> Option<(String, Option<u64>, Value)> {
        while !self.text.contains("\n\n") {
            let bytes = self.response.chunk().await.unwrap()?;
            self.text += std::str::from_utf8(&bytes).unwrap();
        }
        let (event, rest) = self.text.split_once("\n\n").unwrap();
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let id = field("id").map(|id| id.parse().unwrap());
        let event = (field("event").unwrap().to_owned(), id, serde_json::from_str(field("data").unwrap()).unwrap());
        let rest = rest.len();
        self.text.drain(..self.text.len() - rest);
        Some(event)
    }

    /// Returns the entries up to a position. Each must continue the previous one.
    async fn read_up_to(&mut self, mut at: u64, position: u64) -> Vec<Value> {
        let mut entries = Vec::new();
        while at < position {
            let (event, id, data) = self.next().await.expect("the stream goes on");
            match event.as_str() {
                "entry" => {
                    assert_eq!(data["after"], at, "{data}");
                    assert!(data["seq"].as_u64().unwrap() > at, "{data}");
                    entries.push(data.clone());
                }
                "position" => assert!(data["seq"].as_u64().unwrap() >= at && data["at"].is_string(), "{data}"),
                other => panic!("{other}: {data}"),
            }
            at = data["seq"].as_u64().unwrap();
            assert_eq!(id, Some(at));
        }
        entries
    }

    async fn read_end_reason(&mut self) -> Value {
        while let Some((event, _, data)) = self.next().await {
            if event == "end" {
                assert!(self.next().await.is_none());
                return data["reason"].clone();
            }
        }
        panic!("it ended without a word");
    }
}

async fn end_token(at: &Server, token: &str) -> u64 {
    let body = json!({"kind": "token", "id": decode_claims(token)["jti"], "reason": "for the test"});
    at.revoke(body).await["seq"].as_u64().unwrap()
}

/// root → child; root → part, of the reader; joined: the same task; bob: another requester; reader:
/// another agent.
async fn issue_tokens(server: &Server) -> Vec<(&'static str, String)> {
    let root = server.task_token().await;
    let again = |token: &str| form_with_changes(&server.exchange_form(token), &[("purpose", "")]);
    let child = server.issue_token("planner", &again(&root)).await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let part = server.issue_token("reader", &again(&hand_over)).await;
    let task = decode_claims(&root)["txn"].as_str().unwrap().to_owned();
    let joined =
        form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("purpose", ""), ("task_id", &task)]);
    let joined = server.issue_token("planner", &joined).await;
    let bob = server.issue_token("planner", &server.exchange_form(&server.user_token(json!({"sub": "bob"})))).await;
    let carol = server.user_token(json!({"client_id": "reader-client", "sub": "carol"}));
    let reader = server.issue_token("reader", &server.exchange_form(&carol)).await;
    vec![("root", root), ("child", child), ("part", part), ("joined", joined), ("bob", bob), ("reader", reader)]
}

async fn follower_agrees_with_introspection(server: Server) {
    let other = server.replica().await;
    let api = server.api_token("files", SCOPE).await;
    let (mut fresh, mut steady) = (0, FeedReplica::default());
    let task = |tokens: &[(&str, String)]| json!({"kind": "task", "id": decode_claims(&tokens[0].1)["txn"]});
    for round in 0..10 {
        let tokens = issue_tokens(&server).await;
        let id = |n: usize| json!({"kind": "token", "id": decode_claims(&tokens[n].1)["jti"]});
        let path = format!("/tasks/{}", decode_claims(&tokens[0].1)["txn"].as_str().unwrap());
        let act = async |act: &str| {
            let body = Some(json!({"reason": "for the test"}));
            let (status, body) = server.admin(Method::POST, &format!("{path}/{act}"), body).await;
            assert_eq!(status, 200, "{body}");
        };
        let body = match round {
            0 => Some(id(1)),
            1 => Some(id(0)),
            2 => Some(id(2)),
            3 => Some(task(&tokens)),
            4 => Some(json!({"kind": "requester", "issuer": IDP, "subject": "alice"})),
            5 => Some(json!({"kind": "agent", "id": "planner"})),
            6 => Some(json!({"kind": "agent", "id": "reader"})),
            7 => Some(json!({"kind": "resource", "id": "files"})),
            8 => Some(json!({"kind": "issuer", "id": IDP})),
            _ => None,
        };
        if let Some(mut body) = body {
            body["reason"] = json!("for the test");
            server.revoke(body).await;
            fresh += assert_agreement(&server, &other, &api, &mut steady, &tokens).await;
            continue;
        }
        for (act_now, ended) in [("suspend", 4), ("resume", 0), ("suspend", 4), ("complete", 4)] {
            act(act_now).await;
            assert_eq!(assert_agreement(&server, &other, &api, &mut steady, &tokens).await, ended, "{act_now}");
        }
    }
    let tokens = issue_tokens(&server).await;
    for (verb, ended) in [("suspend", 2), ("resume", 0)] {
        server.revoke(json!({"kind": "agent", "id": "reader", "verb": verb, "reason": "for the test"})).await;
        assert_eq!(assert_agreement(&server, &other, &api, &mut steady, &tokens).await, ended, "{verb}");
    }
    // Ends: one child; root, child and part; the part; the task; alice's, the planner's, the
    // reader's tokens; all; all.
    assert_eq!(fresh, 1 + 3 + 1 + 4 + 4 + 5 + 2 + 6 + 6);
    other.stop().await;
    server.stop().await;
}

/// Checks that subscribers from the start, at either replica, and a new one agree with
/// introspection on every token. Returns how many tokens are dead.
async fn assert_agreement(
    server: &Server,
    other: &Server,
    api: &str,
    steady: &mut FeedReplica,
    tokens: &[(&'static str, String)],
) -> usize {
    steady.catch_up(other, api).await;
    let mut fresh = FeedReplica::default();
    fresh.catch_up(server, api).await;
    let mut dead = 0;
    for (name, token) in tokens {
        let live = server.is_active(token).await;
        assert_eq!((steady.is_accepted(token), fresh.is_accepted(token)), (live, live), "{name}");
        dead += usize::from(!live);
    }
    dead
}

async fn subscriber_sees_only_hashed_keys_in_its_scope(server: Server) {
    let (files, admin) = (server.api_token("files", SCOPE).await, server.api_token("audit", "errand:audit").await);
    let token = server.task_token().await;
    for mut body in [
        json!({"kind": "token", "id": decode_claims(&token)["jti"]}),
        json!({"kind": "task", "id": decode_claims(&token)["txn"]}),
        json!({"kind": "requester", "issuer": IDP, "subject": "alice"}),
        json!({"kind": "agent", "id": "planner"}),
        json!({"kind": "issuer", "id": IDP}),
        json!({"kind": "resource", "id": "files"}),
        json!({"kind": "resource", "id": "notes"}),
    ] {
        body["reason"] = json!("because of mallory");
        server.revoke(body).await;
    }
    let (status, body) = server.admin(Method::POST, "/keys/rotate", None).await;
    assert_eq!(status, 200, "{body}");
    // Entries that don't concern verifiers are skipped without a gap.
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest)).await.0, 201);
    let (own, all) = (read_page(&server, &files, "").await, read_page(&server, &admin, "").await);
    let keys = |page: &Value| {
        let entries = page["entries"].as_array().unwrap().iter();
        entries.map(|e| format!("{} {}", e["kind"].as_str().unwrap(), e["key"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut want = vec![
        format!("token {}", text(&decode_claims(&token)["jti"])),
        format!("task {}", text(&decode_claims(&token)["txn"])),
        format!("requester {}", hashed_key("requester", &format!("{IDP} alice"))),
        format!("agent {}", hashed_key("agent", "planner")),
        format!("issuer {}", hashed_key("issuer", IDP)),
        format!("resource {}", hashed_key("resource", FILES)),
    ];
    // A verifier that caches the keys reads them again; they were created at the start.
    want.push("keys ".to_owned());
    let listed = |page: &Value| keys(page).into_iter().skip_while(|key| key == "keys ").collect::<Vec<_>>();
    assert_eq!(listed(&own), want);
    want.insert(want.len() - 1, format!("resource {}", hashed_key("resource", NOTES)));
    assert_eq!(listed(&all), want);
    for page in [&own, &all] {
        assert_eq!((&page["from"], &page["up_to"]), (&json!(0), &page["head"]));
        assert!(page["head"].as_u64() > page["entries"].as_array().unwrap().last().unwrap()["seq"].as_u64());
        for name in ["alice", "planner", "mallory", "ops", "login.example.com", "example"] {
            assert!(!page.to_string().contains(name), "{name}: {page}");
        }
        let members = page["entries"][0].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(members, ["seq", "verb", "kind", "key", "at", "forget_after"]);
    }
    server.stop().await;
}

async fn long_poll_returns_on_new_entry(server: Server) {
    let other = Arc::new(server.replica().await);
    let api = server.api_token("files", SCOPE).await;
    let from = head_position(&server, &api).await;
    // Without new entries, a long poll is answered with an empty page.
    let nothing = read_page(&server, &api, &format!("?after={from}&wait=1")).await;
    assert_eq!((&nothing["up_to"], &nothing["entries"]), (&json!(from), &json!([])));
    let waiting = {
        let (other, api) = (Arc::clone(&other), api.clone());
        tokio::spawn(async move { read_page(&other, &api, &format!("?after={from}&wait=30")).await })
    };
    // Entries for other subscribers don't end the wait and are skipped.
    server.revoke(json!({"kind": "resource", "id": "notes", "reason": "for the test"})).await;
    let seq = end_token(&server, &server.task_token().await).await;
    let page = waiting.await.unwrap();
    let seqs = page["entries"].as_array().unwrap().iter().map(|e| e["seq"].clone()).collect::<Vec<_>>();
    assert_eq!((&page["from"], seqs), (&json!(from), vec![json!(seq)]), "{page}");
    assert!(page["up_to"].as_u64().unwrap() >= seq);
}

async fn stream_resumes_from_last_event_id(server: Server) {
    let other = server.replica().await;
    let api = server.api_token("files", SCOPE).await;
    let first = end_token(&server, &server.task_token().await).await;
    let mut stream = EventStream::open(&server, &api, "", None).await;
    let seen = stream.read_up_to(0, first).await;
    assert_eq!(seen.last().unwrap()["seq"], first);
    let second = end_token(&other, &server.task_token().await).await;
    assert_eq!(stream.read_up_to(first, second).await.last().unwrap()["seq"], second);
    // Without entries, the stream sends its position.
    let (event, id, data) = stream.next().await.unwrap();
    assert_eq!((event.as_str(), id, &data["seq"]), ("position", Some(second), &json!(second)));
    drop(stream);
    let third = end_token(&server, &server.task_token().await).await;
    // A reader that reconnects sends both; `Last-Event-ID` overrides `after`. Another replica
    // continues as well.
    for (query, last) in [(format!("?after={second}"), None), ("?after=0".to_owned(), Some(second))] {
        let mut stream = EventStream::open(&other, &api, &query, last).await;
        let seen = stream.read_up_to(second, third).await;
        assert_eq!(seen.iter().map(|entry| entry["seq"].clone()).collect::<Vec<_>>(), [json!(third)]);
    }
    other.stop().await;
    server.stop().await;
}

async fn concurrent_subscribers_miss_no_entry(server: Server) {
    let other = Arc::new(server.replica().await);
    let server = Arc::new(server);
    let api = server.api_token("files", SCOPE).await;
    let from = head_position(&server, &api).await;
    let token = server.task_token().await;
    let admin = server.api_token("ops", "errand:admin").await;
    let (mut readers, mut writers) = (JoinSet::new(), JoinSet::new());
    let last = from + WRITER_COUNT * REVOCATIONS_PER_WRITER;
    for n in 0..6 {
        let (at, api) = (Arc::clone(if n % 2 == 0 { &server } else { &other }), api.clone());
        readers.spawn(async move {
            if n < 4 {
                return EventStream::open(&at, &api, &format!("?after={from}"), None)
                    .await
                    .read_up_to(from, last)
                    .await;
            }
            let (mut seen, mut position) = (Vec::new(), from);
            while position < last {
                let page = read_page(&at, &api, &format!("?after={position}&wait=30")).await;
                assert_eq!(page["from"], position);
                seen.extend(page["entries"].as_array().unwrap().clone());
                position = page["up_to"].as_u64().unwrap();
            }
            seen
        });
    }
    for n in 0..WRITER_COUNT {
        let (at, admin) = (Arc::clone(if n % 2 == 0 { &server } else { &other }), admin.clone());
        let body = json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "for the test"});
        writers.spawn(async move {
            for _ in 0..REVOCATIONS_PER_WRITER {
                let (status, body) = at.admin_with(&admin, Method::POST, "/revocations", Some(body.clone())).await;
                assert_eq!(status, 200, "{body}");
            }
        });
    }
    writers.join_all().await;
    let want = (from + 1..=last).map(Value::from).collect::<Vec<_>>();
    for seen in readers.join_all().await {
        assert_eq!(seen.iter().map(|entry| entry["seq"].clone()).collect::<Vec<_>>(), want);
    }
}

async fn stream_ends_when_authorization_ends(server: Server) {
    let other = server.replica().await;
    let (by_token, by_client) = (server.api_token("files", SCOPE).await, server.api_token("notes", SCOPE).await);
    let mut of_token = EventStream::open(&server, &by_token, "", None).await;
    let mut of_client = EventStream::open(&server, &by_client, "", None).await;
    end_token(&other, &by_token).await;
    assert_eq!(of_token.read_end_reason().await, "not_allowed");
    assert_eq!(request_page(&server, &by_token, "").await.0, 401);
    // The other subscriber receives the entry and stays connected, until its client is revoked.
    let position = head_position(&server, &by_client).await;
    of_client.read_up_to(0, position).await;
    server.revoke(json!({"kind": "agent", "id": "notes", "reason": "for the test"})).await;
    assert_eq!(of_client.read_end_reason().await, "not_allowed");
    other.stop().await;
    server.stop().await;
}

async fn stream_ends_on_shutdown(mut server: Server) {
    let api = server.api_token("files", SCOPE).await;
    let position = head_position(&server, &api).await;
    let mut stream = EventStream::open(&server, &api, "", None).await;
    stream.read_up_to(0, position).await;
    let waiting = server.request(Method::GET, &format!("/revocations?after={position}&wait=30")).bearer_auth(&api);
    let waiting = tokio::spawn(waiting.send());
    crate::server::wait_until("both listen", || async { server.application.service.subscriber_count() == 2 }).await;
    server.signal_stop();
    assert_eq!(stream.read_end_reason().await, "stopping");
    let (status, page) = read_response(waiting.await.unwrap().unwrap()).await;
    assert_eq!((status.as_u16(), &page["up_to"]), (200, &json!(position)), "{page}");
    server.stop().await;
}

async fn feed_requires_revocations_scope(server: Server) {
    let task = server.task_token().await;
    for (name, token, want) in [
        ("resource", server.api_token("files", SCOPE).await, 200),
        ("resource, another scope", server.api_token("files", "errand:introspect errand:tasks").await, 403),
        ("agent", server.api_token("planner", "errand:tasks").await, 403),
        ("operator", server.api_token("ops", "errand:admin").await, 200),
        ("auditor", server.api_token("audit", "errand:audit").await, 200),
        ("task token", task, 401),
        ("nothing", String::new(), 401),
    ] {
        for accept in ["application/json", "text/event-stream"] {
            let request = server.request(Method::GET, "/revocations").bearer_auth(&token).header("accept", accept);
            assert_eq!(request.send().await.unwrap().status(), want, "{name} {accept}");
        }
    }
    let (status, _) = read_response(server.request(Method::GET, "/revocations").send().await.unwrap()).await;
    assert_eq!(status, 401);
    // Neither an agent nor an admin can have the scope.
    for client in ["reader", "ops"] {
        let asked = form(&[("grant_type", "client_credentials"), ("scope", SCOPE)]);
        assert_eq!(server.request_token_as(client, &asked).await.0, 400, "{client}");
    }
    server.stop().await;
}

async fn invalid_position_is_rejected(server: Server) {
    let api = server.api_token("files", SCOPE).await;
    let seq = end_token(&server, &server.task_token().await).await;
    for (query, want, problem) in [
        (format!("?after={seq}"), 200, None),
        (format!("?after={}", seq + 1), 410, Some("unknown_cursor")),
        (format!("?after={}&wait=1", seq + 1), 410, Some("unknown_cursor")),
        ("?after=9223372036854775807".to_owned(), 410, Some("unknown_cursor")),
        ("?after=9223372036854775808".to_owned(), 400, Some("malformed")),
        ("?after=-1".to_owned(), 400, Some("malformed")),
        ("?after=".to_owned(), 400, Some("malformed")),
        ("?after=1&after=2".to_owned(), 400, Some("malformed")),
        ("?wait=31".to_owned(), 400, Some("malformed")),
        ("?wait=x".to_owned(), 400, Some("malformed")),
        ("?since=1".to_owned(), 400, Some("malformed")),
    ] {
        let (status, body) = request_page(&server, &api, &query).await;
        assert_eq!(status, want, "{query} {body}");
        let problem = problem.map(|problem| json!(format!("urn:errand:problem:{problem}")));
        assert_eq!(body.get("type"), problem.as_ref(), "{query}");
    }
    for (last, query, want) in
        [("x", "", 400), ("-1", "", 400), ("\u{fc}", "", 400), ("99999999", "", 410), ("0", "?wait=1", 400)]
    {
        let request = server.request(Method::GET, &format!("/revocations{query}")).bearer_auth(&api);
        let request = request.header("accept", "text/event-stream").header("last-event-id", last);
        assert_eq!(request.send().await.unwrap().status(), want, "{last} {query}");
    }
    server.stop().await;
}

async fn subscriber_count_is_limited(server: Server) {
    drop(server);
    let edit = |text: String| format!("{text}\n[requests]\nsubscribers = 3\nsubscribers_per_client = 2\n");
    let server = Server::start_edited(TestStore::sqlite().await, edit).await;
    let (files, notes) = (server.api_token("files", SCOPE).await, server.api_token("notes", SCOPE).await);
    let first = EventStream::open(&server, &files, "", None).await;
    let _second = EventStream::open(&server, &files, "", None).await;
    let refused = async |api: &str, query: &str| {
        let request = server.request(Method::GET, &format!("/revocations{query}")).bearer_auth(api);
        let response = request.send().await.unwrap();
        if response.status() == 200 {
            return false;
        }
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"1".parse().unwrap()));
        let (_, body) = read_response(response).await;
        assert_eq!(body["type"], "urn:errand:problem:too_many_subscribers");
        true
    };
    assert!(refused(&files, "?wait=1").await, "the limit of one client is reached");
    assert!(!refused(&files, "").await, "a request without a wait takes no subscription");
    let _third = EventStream::open(&server, &notes, "", None).await;
    assert!(refused(&notes, "?wait=1").await, "the limit of all clients is reached");
    // A disconnected reader frees its subscription.
    drop(first);
    crate::server::wait_until("a seat is free", async || !refused(&notes, "?wait=1").await).await;
    server.stop().await;
}

/// A subscriber that lags far behind does not get entries whose tokens ended long ago. Other
/// subscribers get every entry.
async fn lagging_subscriber_skips_expired_entries(server: Server) {
    let api = server.api_token("files", SCOPE).await;
    let from = head_position(&server, &api).await;
    let now = Server::now();
    // Token revocations from two days ago. Each token expired an hour later; every thousandth
    // expires in an hour.
    let row = |n: u64| {
        let forget = if n.is_multiple_of(1000) { now + 3600 } else { now - 47 * 3600 };
        format!(
            "({}, 'revoke', 'token', '{}', 'x', 'admin:ops', {}, {forget}, '', '')",
            from + n,
            uuid::Uuid::new_v4(),
            now - 48 * 3600
        )
    };
    for chunk in (1..=BACKLOG_ENTRIES).collect::<Vec<_>>().chunks(500) {
        let rows = chunk.iter().map(|n| row(*n)).collect::<Vec<_>>().join(", ");
        let insert = "INSERT INTO revocation_log (seq, verb, kind, key, reason, actor, occurred_at, forget_after, previous, tag) VALUES";
        server.store.tamper(&format!("{insert} {rows}")).await;
    }
    server.store.reseal_log(&*server.application.store_sealer).await;
    // The replica itself must not lag: its subscribers get entries as it applies them.
    crate::server::wait_until("it has applied all of it", || async {
        head_position(&server, &api).await == from + BACKLOG_ENTRIES
    })
    .await;
    let mut stream = EventStream::open(&server, &api, "", None).await;
    let seen = stream.read_up_to(0, from + BACKLOG_ENTRIES).await;
    let old = seen.iter().filter(|entry| entry["seq"].as_u64().unwrap() > from).count();
    assert_eq!(old, 10);
    let mut stream = EventStream::open(&server, &api, &format!("?after={from}"), None).await;
    assert_eq!(stream.read_up_to(from, from + BACKLOG_ENTRIES).await.len(), 10);
    let mut stream = EventStream::open(&server, &api, &format!("?after={}", from + 600), None).await;
    assert_eq!(stream.read_up_to(from + 600, from + BACKLOG_ENTRIES).await.len(), 9900);
    // A missing row is an outage, never a shorter log.
    let other = server.replica().await;
    let api = server.api_token("files", SCOPE).await;
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq = {}", from + BACKLOG_ENTRIES - 5)).await;
    assert_eq!(request_page(&other, &api, &format!("?after={}", from + BACKLOG_ENTRIES - 10)).await.0, 503);
    other.stop().await;
    server.stop().await;
}

/// A subscriber that continues from any position gets exactly the rest: resources only what
/// concerns them, admins everything.
async fn resuming_from_any_entry_returns_the_rest(server: Server) {
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(decode_claims(&server.task_token().await));
    }
    for what in [
        json!({"kind": "token", "id": tokens[0]["jti"]}),
        json!({"kind": "task", "id": tokens[1]["txn"]}),
        json!({"kind": "resource", "uri": NOTES}),
        json!({"kind": "task", "id": tokens[2]["txn"], "verb": "suspend"}),
        json!({"kind": "agent", "id": "writer", "verb": "suspend"}),
        json!({"kind": "requester", "issuer": IDP, "subject": "bob"}),
        json!({"kind": "task", "id": tokens[2]["txn"], "verb": "resume"}),
        json!({"kind": "resource", "uri": FILES}),
    ] {
        server.revoke(crate::server::with_changes(what, json!({"reason": "in a test"}))).await;
    }
    let mut counts = Vec::new();
    for (client, scope) in [("files", SCOPE), ("ops", "errand:admin")] {
        let bearer = server.api_token(client, scope).await;
        let after = async |seq: u64| {
            let request = server.request(Method::GET, &format!("/revocations?after={seq}")).bearer_auth(&bearer);
            let (status, page) = read_response(request.send().await.unwrap()).await;
            assert_eq!((status.as_u16(), &page["up_to"]), (200, &page["head"]), "{page}");
            page
        };
        let whole = after(0).await;
        let all = whole["entries"].as_array().unwrap();
        for seq in 0..=whole["head"].as_u64().unwrap() {
            let rest = all.iter().filter(|entry| entry["seq"].as_u64().unwrap() > seq).cloned().collect::<Vec<_>>();
            let page = after(seq).await;
            assert_eq!((&page["entries"], &page["head"]), (&json!(rest), &whole["head"]), "{client} after {seq}");
        }
        counts.push(all.len());
    }
    assert!(0 < counts[0] && counts[0] < counts[1], "{counts:?}");
    server.stop().await;
}
