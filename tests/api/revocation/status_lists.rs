//! Status lists: the bits of each token agree with introspection, and no other bits change, at
//! every replica and after every start.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use errand::{
    app::{ConflictError, Error, RequestContext},
    domain::{
        audit::WriterId,
        id::TokenId,
        settings::{RateLimit, Retention},
        status_list::{INDEX_BLOCK_SIZE, LIST_SIZE, ListId, Shard, StatusIndex, shuffle_block},
        time::{Lifetime, Timestamp},
    },
    ports::{TokenRecord, WriteSet},
};
use flate2::{Decompress, FlushDecompress};
use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    replication::store_outage::{make_store_unavailable, restore_store},
    server::{ACCESS_TOKEN, IDP, Server, decode_claims, decode_header, form_with_changes, read_response, wait_until},
};

on_both_stores!(
    status_bits_agree_with_introspection,
    suspended_and_resumed_status_is_listed,
    blocked_party_status_is_listed,
    every_token_has_its_own_index,
    index_allocation_continues_after_block,
    token_issued_during_revocation_is_listed,
    status_list_response_has_required_headers,
    large_list_is_compressed,
    unknown_list_returns_404,
    historical_list_returns_501,
    list_expires_with_its_tokens,
    status_list_is_signed_once,
    status_list_without_store_returns_503,
    changed_token_record_suspends_its_own_index,
    wrong_index_of_changed_record_is_cleared,
    tokens_without_status_list_have_no_status_claim,
);

/// Every non-zero index, by list.
type InvalidEntries = BTreeMap<String, BTreeMap<usize, u8>>;

/// Returns the list and the index of a token.
pub fn status_index(token: &str) -> (String, usize) {
    let reference = &decode_claims(token)["status"]["status_list"];
    let index = reference["idx"].as_u64().unwrap_or_else(|| panic!("{}", decode_claims(token)));
    assert!(index < LIST_SIZE);
    (reference["uri"].as_str().unwrap().to_owned(), usize::try_from(index).unwrap())
}

fn inflate(mut decompress: Decompress, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    decompress.decompress_vec(bytes, &mut out, FlushDecompress::Finish).unwrap();
    out
}

fn unb64(text: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

impl Server {
    async fn request_list(&self, uri: &str, headers: HeaderMap) -> Response {
        let path = uri.strip_prefix(&self.issuer).unwrap_or_else(|| panic!("{uri}"));
        self.request(Method::GET, path).headers(headers).send().await.unwrap()
    }

    /// Returns the text of a list, and its non-zero entries.
    async fn read_list(&self, uri: &str) -> (String, BTreeMap<usize, u8>) {
        let asked = Self::now();
        let response = self.request_list(uri, HeaderMap::new()).await;
        assert_eq!(response.status(), 200, "{uri}");
        let jwt = response.text().await.unwrap();
        let (head, claims) = (decode_header(&jwt), decode_claims(&jwt));
        assert_eq!((&head["typ"], &claims["sub"]), (&json!("statuslist+jwt"), &json!(uri)));
        let iat = claims["iat"].as_i64().unwrap();
        assert!((asked - 6..=Self::now()).contains(&iat), "{claims} requested at {asked}");
        assert_eq!((&claims["exp"], &claims["ttl"]), (&json!(iat + 20), &json!(10)), "{claims}");
        assert_eq!(claims["status_list"]["bits"], 2);
        let bytes = inflate(Decompress::new(true), &unb64(claims["status_list"]["lst"].as_str().unwrap()));
        assert_eq!(bytes.len() as u64, LIST_SIZE / 4, "a list is always whole");
        let statuses = (0..).zip(bytes.iter().flat_map(|byte| [0, 2, 4, 6].map(|shift| byte >> shift & 3)));
        (jwt, statuses.filter(|(_, status)| *status != 0).collect())
    }

    pub async fn status_of(&self, token: &str) -> u8 {
        let (uri, index) = status_index(token);
        self.read_list(&uri).await.1.get(&index).copied().unwrap_or_default()
    }

    /// Returns the non-zero entries of all lists.
    async fn read_all_lists(&self) -> InvalidEntries {
        let (status, body) = read_response(self.request(Method::GET, "/status-lists").send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        let mut all = InvalidEntries::new();
        for uri in body["status_lists"].as_array().unwrap() {
            let uri = uri.as_str().unwrap();
            let (_, not_valid) = self.read_list(uri).await;
            if !not_valid.is_empty() {
                all.insert(uri.to_owned(), not_valid);
            }
        }
        all
    }
}

/// The status of a token whose record was changed is unknown until it is restored. Other tokens
/// have theirs meanwhile.
async fn changed_token_record_suspends_its_own_index(server: Server) {
    let (changed, other) = (server.task_token().await, server.task_token().await);
    let jti = decode_claims(&changed)["jti"].as_str().unwrap().to_owned();
    server.store.tamper(&format!("UPDATE tokens SET expires = expires + 1 WHERE id = '{jti}'")).await;
    for token in [&changed, &other] {
        end_task_of(&server, token).await;
    }
    assert_lists(&[&server], &invalid_entries([(&*changed, 2), (&*other, 1)])).await;
    server.store.tamper(&format!("UPDATE tokens SET expires = expires - 1 WHERE id = '{jti}'")).await;
    assert_lists(&[&server], &invalid_entries([(&*changed, 1), (&*other, 1)])).await;
    server.stop().await;
}

/// A record that names the index of another token suspends that token only until it is restored.
async fn wrong_index_of_changed_record_is_cleared(server: Server) {
    let (changed, other) = (server.task_token().await, server.task_token().await);
    let jti = decode_claims(&changed)["jti"].as_str().unwrap().to_owned();
    let (uri, index) = status_index(&changed);
    let wrong = index ^ 1;
    server.store.tamper(&format!("UPDATE tokens SET status_index = {wrong} WHERE id = '{jti}'")).await;
    for token in [&changed, &other] {
        end_task_of(&server, token).await;
    }
    let mut entries = invalid_entries([(&*other, 1)]);
    // The other token may have this index.
    if status_index(&other) != (uri.clone(), wrong) {
        entries.entry(uri).or_default().insert(wrong, 2);
        assert_lists(&[&server], &entries).await;
    }
    server.store.tamper(&format!("UPDATE tokens SET status_index = {index} WHERE id = '{jti}'")).await;
    assert_lists(&[&server], &invalid_entries([(&*changed, 1), (&*other, 1)])).await;
    server.stop().await;
}

async fn end_task_of(server: &Server, token: &str) {
    let end = json!({"kind": "task", "id": decode_claims(token)["txn"], "reason": "in a test"});
    let (status, body) = server.admin(Method::POST, "/revocations", Some(end)).await;
    assert!(status.is_success(), "{body}");
}

fn invalid_entries<'a>(tokens: impl IntoIterator<Item = (&'a str, u8)>) -> InvalidEntries {
    let mut all = InvalidEntries::new();
    for (token, status) in tokens {
        let (uri, index) = status_index(token);
        all.entry(uri).or_default().insert(index, status);
    }
    all
}

/// Waits until the lists of all these servers have exactly these entries.
async fn assert_lists(servers: &[&Server], want: &InvalidEntries) {
    for server in servers {
        wait_until(&format!("the lists say {want:?}"), || async { server.read_all_lists().await == *want }).await;
    }
}

/// root → child; root → part, of the reader; root → txn; joined: the same task; bob: another
/// requester; reader: another agent.
async fn issue_tokens(server: &Server) -> Vec<(&'static str, String)> {
    let root = server.task_token().await;
    let again = |token: &str| form_with_changes(&server.exchange_form(token), &[("purpose", "")]);
    let child = server.issue_token("planner", &again(&root)).await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    assert!(decode_claims(&hand_over)["status"].is_null(), "only Errand verifies it");
    let part = server.issue_token("reader", &again(&hand_over)).await;
    let txn = form_with_changes(&server.txn_form(&root, ACCESS_TOKEN), &[("purpose", "")]);
    let txn = server.issue_token("planner", &txn).await;
    let task = decode_claims(&root)["txn"].as_str().unwrap().to_owned();
    let joined =
        form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("purpose", ""), ("task_id", &task)]);
    let joined = server.issue_token("planner", &joined).await;
    let bob = server.issue_token("planner", &server.exchange_form(&server.user_token(json!({"sub": "bob"})))).await;
    let carol = server.user_token(json!({"client_id": "reader-client", "sub": "carol"}));
    let reader = server.issue_token("reader", &server.exchange_form(&carol)).await;
    vec![
        ("root", root),
        ("child", child),
        ("part", part),
        ("txn", txn),
        ("joined", joined),
        ("bob", bob),
        ("reader", reader),
    ]
}

async fn status_bits_agree_with_introspection(server: Server) {
    let other = server.replica().await;
    let every_name = "root child part txn joined bob reader";
    let (mut ended, mut all) = (Vec::new(), Vec::<(&str, String)>::new());
    for (round, dead) in [
        "child",
        "root child part txn",
        "part",
        "root child part txn joined",
        "root child part txn joined",
        "root child part txn joined bob",
        "part reader",
        every_name,
        every_name,
    ]
    .into_iter()
    .enumerate()
    {
        let tokens = issue_tokens(&server).await;
        let id = |n: usize| json!({"kind": "token", "id": decode_claims(&tokens[n].1)["jti"]});
        let mut body = match round {
            0 => id(1),
            1 => id(0),
            2 => id(2),
            3 => json!({"kind": "task", "id": decode_claims(&tokens[0].1)["txn"]}),
            4 => json!({"kind": "requester", "issuer": IDP, "subject": "alice"}),
            5 => json!({"kind": "agent", "id": "planner"}),
            6 => json!({"kind": "agent", "id": "reader"}),
            7 => json!({"kind": "resource", "id": "files"}),
            _ => json!({"kind": "issuer", "id": IDP}),
        };
        body["reason"] = json!("for the test");
        // In every other round the list was not requested before.
        if round % 2 == 0 {
            assert_lists(&[&server, &other], &invalid_entries(ended.iter().map(|token: &String| (token.as_str(), 1))))
                .await;
        }
        server.revoke(body).await;
        let dead = dead.split(' ').collect::<BTreeSet<_>>();
        // Targets that persist also end the tokens of earlier rounds.
        let before = if round < 4 { &[][..] } else { &all[..] };
        let touched = before.iter().chain(&tokens).filter(|(name, _)| dead.contains(name));
        ended.extend(touched.map(|(_, token)| token.clone()));
        let want = invalid_entries(ended.iter().map(|token| (token.as_str(), 1)));
        assert_lists(&[&server, &other], &want).await;
        for (name, token) in &tokens {
            let is_live = !dead.contains(name);
            assert!(*name == "txn" || server.is_active(token).await == is_live, "round {round}: {name}");
            assert_eq!(other.status_of(token).await == 0, is_live, "round {round}: {name}");
        }
        all.extend(tokens);
    }
    // A replica that starts now agrees from its first answer on.
    let newcomer = server.replica().await;
    let want = invalid_entries(ended.iter().map(|token| (token.as_str(), 1)));
    assert_eq!(newcomer.read_all_lists().await, want);
    let places = all.iter().map(|(_, token)| status_index(token)).collect::<BTreeSet<_>>();
    assert_eq!(places.len(), all.len(), "each token has an index of its own");
}

async fn suspended_and_resumed_status_is_listed(server: Server) {
    let other = server.replica().await;
    let mine = issue_tokens(&server).await;
    let path = format!("/tasks/{}", decode_claims(&mine[0].1)["txn"].as_str().unwrap());
    let of_task = |status| invalid_entries(mine.iter().take(5).map(move |(_, token)| (token.as_str(), status)));
    let none = InvalidEntries::new();
    let act = async |act: &str| {
        let body = Some(json!({"reason": "for the test"}));
        let (status, body) = server.admin(Method::POST, &format!("{path}/{act}"), body).await;
        assert_eq!(status, 200, "{body}");
    };
    for (act_now, want) in [("suspend", of_task(2)), ("resume", none.clone()), ("suspend", of_task(2))] {
        act(act_now).await;
        assert_lists(&[&server, &other], &want).await;
    }
    // A replica that starts during the suspension.
    let newcomer = server.replica().await;
    assert_eq!(newcomer.read_all_lists().await, of_task(2));
    act("resume").await;
    assert_lists(&[&server, &other, &newcomer], &none).await;
    let agent = async |verb: &str| {
        server.revoke(json!({"kind": "agent", "id": "reader", "verb": verb, "reason": "for the test"})).await;
    };
    let of_reader = invalid_entries([(mine[2].1.as_str(), 2), (mine[6].1.as_str(), 2)]);
    for (verb, want) in [("suspend", &of_reader), ("resume", &none), ("suspend", &of_reader)] {
        agent(verb).await;
        assert_lists(&[&server, &other], want).await;
    }
    act("complete").await;
    agent("resume").await;
    assert_lists(&[&server, &other, &newcomer], &of_task(1)).await;
}

async fn blocked_party_status_is_listed(server: Server) {
    let other = server.replica().await;
    let mine = issue_tokens(&server).await;
    let mut dead = BTreeMap::<&str, u8>::new();
    let mut step = async |body: Value, names: &[&str]| {
        let mut body = body;
        body["reason"] = json!("for the test");
        server.revoke(body).await;
        for (_, token) in mine.iter().filter(|(name, _)| names.contains(name)) {
            dead.insert(token, 1);
        }
        assert_lists(&[&server, &other], &invalid_entries(dead.iter().map(|(token, status)| (*token, *status)))).await;
    };
    step(json!({"kind": "agent", "id": "reader", "verb": "block"}), &["part", "reader"]).await;
    step(json!({"kind": "requester", "issuer": IDP, "subject": "bob", "verb": "block"}), &["bob"]).await;
    // Unblocking restores no token.
    step(json!({"kind": "agent", "id": "reader", "verb": "unblock"}), &[]).await;
    step(json!({"kind": "resource", "id": "notes", "verb": "block"}), &[]).await;
    step(json!({"kind": "resource", "id": "files", "verb": "block"}), &["root", "child", "txn", "joined"]).await;
}

async fn every_token_has_its_own_index(server: Server) {
    let replicas = [server.replica().await, server.replica().await];
    let mut issuing = JoinSet::new();
    for replica in replicas {
        let replica = Arc::new(replica);
        for _ in 0..4 {
            let replica = Arc::clone(&replica);
            issuing.spawn(async move {
                let mut places = Vec::new();
                for _ in 0..10 {
                    places.push(status_index(&replica.task_token().await));
                }
                places
            });
        }
    }
    let mut places = issuing.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    let newcomer = server.replica().await;
    for server in [&server, &newcomer] {
        places.push(status_index(&server.task_token().await));
    }
    let indices = places.iter().map(|(_, index)| *index).collect::<Vec<_>>();
    assert!(!indices.is_sorted(), "{indices:?}");
    let all = places.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(all.len(), 82, "each token has an index of its own");
}

/// Index blocks are exhausted and replaced without an effect on clients.
async fn index_allocation_continues_after_block(server: Server) {
    // The default rate of a client is lower than what this client sends.
    let fast = server.replica_with(|config| config.admission.exchange = RateLimit::new(10_000, 10_000, 64)).await;
    let server = Arc::new(fast);
    let most = usize::try_from(INDEX_BLOCK_SIZE).unwrap() + 50;
    let mut issuing = JoinSet::new();
    for part in 0..8 {
        // One requester may not have as many open tasks.
        let user = server.user_token(json!({"client_id": "reader-client", "sub": format!("carol-{part}")}));
        let (server, form) = (Arc::clone(&server), server.exchange_form(&user));
        issuing.spawn(async move {
            let mut places = Vec::new();
            for _ in (part..most).step_by(8) {
                places.push(status_index(&server.issue_token("reader", &form).await));
            }
            places
        });
    }
    let places = issuing.join_all().await.into_iter().flatten().collect::<BTreeSet<_>>();
    assert_eq!(places.len(), most, "each token has an index of its own");
    let blocks = places.iter().map(|(uri, index)| (uri, *index as u64 / INDEX_BLOCK_SIZE)).collect::<BTreeSet<_>>();
    assert!(blocks.len() > 1, "{blocks:?}");
}

/// Tokens that are issued while their parent is revoked are marked in the list.
async fn token_issued_during_revocation_is_listed(server: Server) {
    let other = Arc::new(server.replica().await);
    let server = Arc::new(server);
    for _ in 0..3 {
        let root = server.task_token().await;
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut issuing = JoinSet::new();
        for n in 0..8 {
            let (server, other) = (Arc::clone(&server), Arc::clone(&other));
            let form = form_with_changes(&server.exchange_form(&root), &[("purpose", "")]);
            let (is_over, count) = (Arc::clone(&is_over), Arc::clone(&count));
            issuing.spawn(async move {
                let mut got = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    let at = if n % 2 == 0 { &server } else { &other };
                    let (status, body) = at.request_token_as("planner", &form).await;
                    match status.as_u16() {
                        200 => {
                            got.push(body["access_token"].as_str().unwrap().to_owned());
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => assert_eq!(status, 400, "{body}"),
                    }
                }
                got
            });
        }
        wait_until("some were issued", || async { count.load(Ordering::SeqCst) > 16 }).await;
        let end = json!({"kind": "token", "id": decode_claims(&root)["jti"], "reason": "for the test"});
        let (_, ()) = tokio::join!(server.revoke(end), async {
            for _ in 0..5 {
                other.status_of(&root).await;
            }
        });
        is_over.store(true, Ordering::SeqCst);
        let got = issuing.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        assert!(!got.is_empty());
        for at in [&server, &other] {
            wait_until("all that were got are ended", || async {
                let lists = at.read_all_lists().await;
                let is_ended = |token: &String| {
                    let (uri, index) = status_index(token);
                    lists.get(&uri).is_some_and(|list| list.get(&index) == Some(&1))
                };
                got.iter().all(is_ended)
            })
            .await;
        }
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

async fn status_list_response_has_required_headers(server: Server) {
    let token = server.task_token().await;
    let (uri, _) = status_index(&token);
    let plain = server.request_list(&uri, headers(&[("accept", "application/statuslist+jwt")])).await;
    assert_eq!(plain.status(), 200);
    let named = plain.headers().clone();
    for (name, want) in [
        ("content-type", "application/statuslist+jwt"),
        ("cache-control", "public, max-age=10"),
        ("access-control-allow-origin", "*"),
        ("vary", "accept-encoding"),
    ] {
        assert_eq!(named[name], want, "{name}");
    }
    assert!(!named.contains_key("content-encoding"));
    let jwt = plain.text().await.unwrap();
    let jwks = server.request(Method::GET, "/oauth2/jwks").send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(decode_header(&jwt)["kid"], jwks["keys"][0]["kid"]);
    assert_eq!(decode_header(&jwt)["alg"], "ES256");
    assert_eq!(decode_claims(&jwt)["iss"], server.issuer.as_str());
    // The list is too short to be worth compressing.
    let gzip = server.request_list(&uri, headers(&[("accept-encoding", "gzip")])).await;
    assert!(!gzip.headers().contains_key("content-encoding"));
    // A cached list is not sent again, until it is signed anew, which may happen just now.
    wait_until("it is the same as a moment ago", || async {
        let first = server.request_list(&uri, HeaderMap::new()).await.headers()["etag"].clone();
        let first = first.to_str().unwrap();
        let again = server.request_list(&uri, headers(&[("if-none-match", &format!("\"x\", W/{first}"))])).await;
        let is_same = again.status() == 304;
        if is_same {
            assert_eq!(again.headers()["etag"], first);
            assert_eq!(again.headers()["cache-control"], "public, max-age=10");
            assert!(again.bytes().await.unwrap().is_empty());
        }
        is_same
    })
    .await;
    let path = uri.strip_prefix(&server.issuer).unwrap();
    let head = server.request(Method::HEAD, path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-type"]), (200, &named["content-type"]));
    assert!(head.bytes().await.unwrap().is_empty());
    let post = server.request(Method::POST, path).send().await.unwrap();
    assert_eq!((post.status().as_u16(), &post.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
    // After the revocation, the text and its ETag differ.
    server.revoke(json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "for the test"})).await;
    wait_until("it says so", || async { server.status_of(&token).await == 1 }).await;
    let old = headers(&[("if-none-match", named["etag"].to_str().unwrap())]);
    assert_eq!(server.request_list(&uri, old).await.status(), 200);
    let metadata = server.request(Method::GET, "/.well-known/oauth-authorization-server").send().await.unwrap();
    let metadata = metadata.json::<Value>().await.unwrap();
    assert_eq!(metadata["status_list_aggregation_endpoint"], format!("{}/status-lists", server.issuer));
    let lists = server.request(Method::GET, "/status-lists").send().await.unwrap();
    assert_eq!(lists.headers()["cache-control"], "public, max-age=10");
    // The lists of the next shard exist ahead of time.
    assert_eq!(lists.json::<Value>().await.unwrap()["status_lists"][0], uri.as_str());
    // Removed keys sign no list that is served.
    let before = server.read_list(&uri).await.0;
    let (status, body) = server
        .admin(
            Method::POST,
            &format!("/keys/{}/revoke", decode_header(&before)["kid"].as_str().unwrap()),
            Some(json!({"reason": "leaked"})),
        )
        .await;
    assert_eq!(status, 200, "{body}");
    assert_ne!(decode_header(&server.read_list(&uri).await.0)["kid"], decode_header(&before)["kid"]);
}

/// A list that is compressed, with entries that compress badly.
async fn large_list_is_compressed(server: Server) {
    const MANY: u64 = 3000;
    let token = server.task_token().await;
    let record =
        server.open_store().await.find_token(decode_claims(&token)["jti"].as_str().unwrap().parse().unwrap()).await;
    let record = record.unwrap().unwrap();
    let shard = record.status_index.unwrap().shard;
    let store = server.open_store().await;
    while store.allocate_status_block(shard).await.unwrap() + 1 < LIST_SIZE / INDEX_BLOCK_SIZE {}
    // Entries scattered over everything except the first block.
    let mut numbers = (1..LIST_SIZE / INDEX_BLOCK_SIZE)
        .flat_map(|block| shuffle_block(block, &[9; 32]).into_iter().take(12))
        .collect::<Vec<_>>();
    numbers.truncate(usize::try_from(MANY).unwrap());
    let one = |number: &u64| TokenRecord {
        id: TokenId::new(uuid::Uuid::new_v4()),
        status_index: Some(StatusIndex { shard, number: *number }),
        ..record.clone()
    };
    let writes = numbers.iter().map(|n| WriteSet { token: Some(one(n)), ..WriteSet::default() }).collect::<Vec<_>>();
    store.commit(WriterId(uuid::Uuid::new_v4()), &writes).await.unwrap();
    server.revoke(json!({"kind": "task", "id": decode_claims(&token)["txn"], "reason": "for the test"})).await;
    let (uri, index) = status_index(&token);
    let want = numbers.iter().map(|n| usize::try_from(*n).unwrap()).chain([index]).map(|index| (index, 1)).collect();
    wait_until("all are ended", || async { server.read_list(&uri).await.1 == want }).await;
    wait_until("it is the same as a moment ago", || async {
        let plain = server.read_list(&uri).await.0;
        let response = server.request_list(&uri, headers(&[("accept-encoding", "br, gzip;q=0.5")])).await;
        let named = response.headers().clone();
        assert_eq!(
            (&named["content-encoding"], &named["vary"]),
            (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
        assert_eq!(named["content-type"], "application/statuslist+jwt");
        let tag = named["etag"].to_str().unwrap().to_owned();
        assert!(tag.ends_with("-gzip\""), "{tag}");
        let bytes = response.bytes().await.unwrap();
        assert!(bytes.len() < plain.len(), "{} of {}", bytes.len(), plain.len());
        let is_same = inflate(Decompress::new_gzip(15), &bytes) == plain.as_bytes();
        let refused = server.request_list(&uri, headers(&[("accept-encoding", "gzip;q=0")])).await;
        assert!(!refused.headers().contains_key("content-encoding") && refused.headers()["etag"] != tag.as_str());
        let known = headers(&[("accept-encoding", "gzip"), ("if-none-match", &tag)]);
        is_same && server.request_list(&uri, known).await.status() == 304
    })
    .await;
}

async fn unknown_list_returns_404(server: Server) {
    let token = server.task_token().await;
    let (uri, _) = status_index(&token);
    let (end, _) = uri.rsplit_once('/').unwrap().1.split_once('-').unwrap();
    let end = end.parse::<i64>().unwrap();
    for (id, want) in [
        (format!("{end}-0"), 200),
        (format!("{end}-1"), 404),
        (format!("{end}-00"), 404),
        (format!("{end}"), 404),
        (format!("{}-0", end + 1), 404),
        (format!("{}-0", end + 600), 404),
        (format!("{}-0", end + 300 * 1_000_000), 404),
        (format!("{end}-18446744073709551615"), 404),
        (format!("{}-0", end - 900), 410),
        ("300-0".into(), 410),
        ("x".into(), 404),
        ("%ff".into(), 404),
        ("..%2f..".into(), 404),
        ("'%20OR%201=1".into(), 404),
        ("9".repeat(2000), 404),
    ] {
        let answer = server.request(Method::GET, &format!("/status-lists/{id}")).send().await.unwrap();
        let (status, body) = read_response(answer).await;
        assert_eq!(status.as_u16(), want, "{id}: {body}");
        let kind = match want {
            404 => "urn:errand:problem:not_found",
            410 => "urn:errand:problem:status_list_expired",
            _ => continue,
        };
        assert_eq!(body["type"], kind, "{id}: {body}");
    }
}

/// A request for a historical list never gets the current one, whatever the time, its format and
/// the list.
async fn historical_list_returns_501(server: Server) {
    let token = server.task_token().await;
    let (uri, _) = status_index(&token);
    let id = uri.rsplit_once('/').unwrap().1;
    for query in ["time=1795200000", "time=0", "time=", "time", "a=b&time=1", "time=1&time=2", "ti%6de=1", "time=x%ff"]
    {
        for id in [id, "300-0", "x"] {
            let path = format!("/status-lists/{id}?{query}");
            let answer = server.request(Method::GET, &path).header("if-none-match", "*").send().await.unwrap();
            assert_eq!(answer.headers()["cache-control"], "no-store", "{query}");
            let (status, body) = read_response(answer).await;
            assert_eq!(
                (status.as_u16(), &body["type"]),
                (501, &json!("urn:errand:problem:history_unsupported")),
                "{path}: {body}"
            );
        }
    }
    for query in ["", "?", "?times=1", "?now=time"] {
        let answer = server.request(Method::GET, &format!("/status-lists/{id}{query}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{query}");
    }
    server.stop().await;
}

async fn list_expires_with_its_tokens(server: Server) {
    let token = server.task_token().await;
    let service = &server.application.service;
    let id = status_index(&token).0.rsplit_once('/').unwrap().1.parse::<ListId>().unwrap();
    let ends = Timestamp::from_unix(id.shard.end());
    assert!(decode_claims(&token)["exp"].as_i64().unwrap() <= ends.unix());
    let at = |now: Timestamp| RequestContext { now, ..server.cx() };
    let minutes = Lifetime::minutes(5);
    service.read_status_list(id, &at(ends)).await.unwrap();
    service.read_status_list(id, &at(ends.saturating_add(minutes).saturating_sub(Lifetime::seconds(1)))).await.unwrap();
    let over = service.read_status_list(id, &at(ends.saturating_add(minutes))).await.unwrap_err();
    assert!(matches!(over, Error::Conflict(ConflictError::StatusListExpired)), "{over}");
    let uri = status_index(&token).0;
    assert!(service.list_status_lists(&at(ends.saturating_sub(Lifetime::seconds(1)))).await.unwrap().contains(&uri));
    assert!(!service.list_status_lists(&at(ends.saturating_add(minutes))).await.unwrap().contains(&uri));
    // Maintenance on the next day drops the list. Maintenance today does not.
    let store = server.open_store().await;
    service.collect_garbage(&server.cx()).await.unwrap();
    assert_eq!(store.list_status_shards(Timestamp::EPOCH).await.unwrap()[0], (Shard::for_expiry(ends), 1));
    store
        .collect_garbage(
            ends.saturating_add(Lifetime::hours(24)),
            &Retention::default().cutoffs(ends.saturating_add(Lifetime::hours(24))),
        )
        .await
        .unwrap();
    assert!(!store.list_status_shards(Timestamp::EPOCH).await.unwrap().contains(&(Shard::for_expiry(ends), 1)));
}

/// Each signature differs, so equal texts have the same signature.
async fn status_list_is_signed_once(server: Server) {
    let server = Arc::new(server);
    let token = server.task_token().await;
    let (uri, _) = status_index(&token);
    wait_until("one text for all", || async {
        let mut asking = JoinSet::new();
        for _ in 0..50 {
            let (server, uri) = (Arc::clone(&server), uri.clone());
            asking.spawn(async move { server.read_list(&uri).await.0 });
        }
        asking.join_all().await.into_iter().collect::<BTreeSet<_>>().len() == 1
    })
    .await;
}

async fn status_list_without_store_returns_503(server: Server) {
    let token = server.task_token().await;
    let (uri, _) = status_index(&token);
    wait_until("its lease holds", || async { server.application.service.holds_lease() }).await;
    assert_eq!(server.status_of(&token).await, 0);
    make_store_unavailable(&server.store).await;
    wait_until("it does not know", || async {
        let status = server.request_list(&uri, HeaderMap::new()).await.status().as_u16();
        assert!(status == 200 || status == 503, "{status}");
        status == 503
    })
    .await;
    for path in [uri.as_str(), &format!("{}/status-lists", server.issuer)] {
        let (status, body) = read_response(server.request_list(path, HeaderMap::new()).await).await;
        assert_eq!(status, 503, "{body}");
    }
    restore_store(&server.store).await;
    wait_until("it knows again", || async { server.request_list(&uri, HeaderMap::new()).await.status() == 200 }).await;
    assert_eq!(server.status_of(&token).await, 0);
}

async fn tokens_without_status_list_have_no_status_claim(server: Server) {
    let listed = server.task_token().await;
    let without = server.replica_with(|config| config.status_list.enabled = false).await;
    let token = without.task_token().await;
    assert!(decode_claims(&token)["status"].is_null());
    assert!(without.is_active(&token).await);
    // Tokens with an index keep it.
    server.revoke(json!({"kind": "token", "id": decode_claims(&listed)["jti"], "reason": "for the test"})).await;
    wait_until("it says so", || async { without.status_of(&listed).await == 1 }).await;
}
