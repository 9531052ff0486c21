//! The audit trail: every event is recorded, records are bounded and searchable, and tampering is
//! detected.

use errand::{
    domain::audit::{Event, Outcome, Record, WriterId},
    ports::WriteSet,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    IDP, Server, decode_claims, form, form_with_changes, read_response, secret, wait_until, with_assertion,
};

on_both_stores!(
    every_event_is_audited,
    refusal_record_size_is_bounded,
    long_trail_is_paginated,
    tampering_is_detected,
    verification_tolerates_concurrent_writes,
    audit_search_matches_filters,
);

impl Server {
    /// All records, newest first.
    pub async fn audit_records(&self, query: &str) -> Vec<Value> {
        let (status, list) = self.admin(Method::GET, &format!("/audit?limit=1000{query}"), None).await;
        assert_eq!(status, 200, "{list}");
        list["items"].as_array().unwrap().iter().map(|item| item["record"].clone()).collect()
    }

    /// Returns the record of a request. Waits for it, because some records are written in the
    /// background.
    pub async fn audit_record_of(&self, id: &str) -> Value {
        // The records of tasks that end in consequence follow the record of the request itself.
        let find = async || self.audit_records("").await.into_iter().rfind(|record| record["request_id"] == id);
        wait_until(id, || async { find().await.is_some() }).await;
        find().await.unwrap()
    }
}

async fn every_event_is_audited(server: Server) {
    let named = |path: &str, id: &str| server.post(path).header("x-request-id", id);
    let send = async |request: reqwest::RequestBuilder, want: u16| {
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!(status, want, "{body}");
        body
    };
    let planner = |form| with_assertion(&form, &server.assertion(json!({})));
    let good = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("expires_in", "120")]);
    let body = send(named("/oauth2/token", "r-issue").form(&planner(good.clone())), 200).await;
    let token = body["access_token"].as_str().unwrap().to_owned();
    let claims = decode_claims(&token);

    let record = server.audit_record_of("r-issue").await;
    assert_eq!((&record["event"], &record["outcome"]), (&json!("token.issue"), &json!("done")));
    assert_eq!(record["requester"], json!({"issuer": IDP, "subject": "alice"}));
    assert_eq!((&record["agents"], &record["client"]), (&json!(["planner"]), &json!("planner")));
    assert_eq!((&record["task"], &record["token"]), (&claims["txn"], &claims["jti"]));
    assert_eq!((&record["purpose"], &record["resource"]), (&json!("the quarterly report"), &claims["aud"]));
    assert_eq!(record["requested"], json!({"scope": "files:read", "expires_in": 120}));
    let granted = &record["granted"];
    assert_eq!((&granted["scope"], &granted["expires"]), (&json!("files:read"), &claims["exp"]));
    assert_eq!((&granted["basis"], &granted["kind"]), (&json!("client"), &json!("access")));
    assert_eq!(granted["authorization_details"], claims["authorization_details"]);
    assert_eq!(record["authority_hash"], claims["task"]["authority_hash"]);

    let wide = form_with_changes(&good, &[("scope", "files:read files:delete")]);
    send(named("/oauth2/token", "r-wide").form(&planner(wide)), 400).await;
    let record = server.audit_record_of("r-wide").await;
    assert_eq!((&record["event"], &record["outcome"]), (&json!("token.issue"), &json!("refused")));
    assert_eq!((&record["requester"]["subject"], &record["client"]), (&json!("alice"), &json!("planner")));
    assert_eq!(record["requested"]["scope"], "files:delete files:read");
    assert!(record["reason"].as_str().unwrap().contains("scope"), "{record}");
    assert_eq!((&record["purpose"], &record["token"]), (&json!("the quarterly report"), &Value::Null));

    let bad = form_with_changes(&good, &[("subject_token", &server.user_token(json!({"exp": 1})))]);
    send(named("/oauth2/token", "r-bad").form(&planner(bad)), 400).await;
    let record = server.audit_record_of("r-bad").await;
    assert_eq!(
        (&record["outcome"], &record["requester"]),
        (&json!("refused"), &Value::Null),
        "an unverified token names no requester"
    );

    send(named("/oauth2/token", "r-who").basic_auth("reader", Some("wrong")).form(&good), 401).await;
    let record = server.audit_record_of("r-who").await;
    assert_eq!((&record["event"], &record["outcome"]), (&json!("client.authenticate"), &json!("refused")));
    assert_eq!(record["client"], "reader", "the claimed client is registered");

    let introspect = |id: &str, token: &str| {
        named("/oauth2/introspect", id).basic_auth("files", Some(secret("files"))).form(&form(&[("token", token)]))
    };
    send(introspect("r-ask", &token), 200).await;
    let record = server.audit_record_of("r-ask").await;
    assert_eq!((&record["event"], &record["outcome"]), (&json!("token.introspect"), &json!("active")));
    assert_eq!((&record["token"], &record["task"]), (&claims["jti"], &claims["txn"]));
    assert_eq!((&record["client"], &record["requester"]["subject"]), (&json!("files"), &json!("alice")));
    let at_another = named("/oauth2/introspect", "r-ask-no").basic_auth("notes", Some(secret("notes")));
    send(at_another.form(&form(&[("token", &token)])), 200).await;
    assert_eq!(server.audit_record_of("r-ask-no").await["outcome"], "inactive");

    let by_stranger = named("/oauth2/revoke", "r-not-mine").basic_auth("stranger", Some(secret("stranger")));
    send(by_stranger.form(&form(&[("token", &token)])), 400).await;
    let record = server.audit_record_of("r-not-mine").await;
    assert_eq!((&record["event"], &record["outcome"]), (&json!("revocation"), &json!("refused")));
    assert_eq!((&record["client"], &record["token"]), (&json!("stranger"), &claims["jti"]));
    send(named("/oauth2/revoke", "r-mine").form(&planner(form(&[("token", &token)]))), 200).await;
    let record = server.audit_record_of("r-mine").await;
    assert_eq!((&record["event"], &record["outcome"]), (&json!("revocation"), &json!("done")));

    let api = server.api_token("ops", "errand:admin").await;
    let admin = |method: Method, path: &str, id: &str| {
        server.request(method, &format!("/v1/admin{path}")).bearer_auth(&api).header("x-request-id", id)
    };
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    send(admin(Method::PUT, "/agents/guest", "r-put").json(&guest), 201).await;
    let made = send(admin(Method::POST, "/clients/guest/secret", "r-secret"), 201).await;
    send(admin(Method::DELETE, "/agents/guest", "r-remove"), 204).await;
    send(admin(Method::POST, "/keys/rotate", "r-key"), 200).await;
    let grant = json!({"issuer": IDP, "subject": "alice", "agent": "reader", "until": "2100-01-01T00:00:00Z"});
    send(admin(Method::POST, "/grants", "r-grant").json(&grant), 201).await;
    for (id, event) in [
        ("r-put", "registry.change"),
        ("r-secret", "secret.change"),
        ("r-remove", "registry.change"),
        ("r-key", "key.rotate"),
        ("r-grant", "grant.change"),
    ] {
        let record = server.audit_record_of(id).await;
        assert_eq!((&record["event"], &record["admin"]), (&json!(event), &json!("admin:ops")), "{record}");
        assert_eq!(record["outcome"], "done");
        assert!(!record.to_string().contains(made["client_secret"].as_str().unwrap()));
    }
    assert!(server.audit_records("").await.iter().any(|r| r["admin"] == "file" && r["event"] == "registry.change"));
    assert!(server.audit_records("").await.iter().any(|r| r["admin"] == "start" && r["event"] == "key.rotate"));
    server.stop().await;
}

/// Details with this number of values of 56 characters and this number of locations.
fn details_with(values: usize, locations: usize) -> String {
    let locations = (0..locations).map(|n| format!("https://a{n}.example")).collect::<Vec<_>>();
    let values = (0..values).map(|n| format!("{n:056}")).collect::<Vec<_>>();
    json!([{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "t", "locations": locations,
        "constraints": {"p": {"one_of": values}}}])
    .to_string()
}

/// The record of a refusal is not much larger than the request: nothing in it is multiplied.
async fn refusal_record_size_is_bounded(server: Server) {
    let request = |details: &str| {
        form_with_changes(&server.exchange_form("not-a-token"), &[("scope", ""), ("authorization_details", details)])
    };
    let (product, largest) = (details_with(230, 64), details_with(250, 1));
    assert!(product.len() <= 16_384 && largest.len() > 14_000);
    let (status, body) = server.request_token_as("stranger", &request(&product)).await;
    let description = body["error_description"].as_str().unwrap_or_default();
    assert!(status == 400 && description.contains("expands to more than 16384 bytes"), "{body}");
    let (status, body) = server.request_token_as("stranger", &request(&largest)).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{body}");
    let grant = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "until": "2100-01-01T00:00:00Z",
        "authorization_details": serde_json::from_str::<Value>(&product).unwrap()});
    let (status, body) = server.admin(Method::POST, "/grants", Some(grant)).await;
    assert!(status.is_client_error(), "{body}");
    let refused = server.audit_records("&outcome=refused").await;
    assert!(
        refused.iter().any(|r| r["requested"]["authorization_details"].to_string().len() > 14_000),
        "the requested details are recorded"
    );
    for record in refused {
        assert!(record.to_string().len() < 18_000, "{} bytes", record.to_string().len());
    }
    server.stop().await;
}

/// A page of a long trail has a bounded size, and the next page continues after it.
async fn long_trail_is_paginated(server: Server) {
    const REFUSED: usize = 330;
    let token = server.task_token().await;
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    // Refusals are sampled, so the records are written by hand.
    let store = server.open_store().await;
    let details = serde_json::from_str::<Value>(&details_with(250, 1)).unwrap();
    let writer = WriterId(uuid::Uuid::new_v4());
    for n in 0..REFUSED {
        let record = Record {
            task: task.parse().ok(),
            requested: Some(json!({"authorization_details": details, "n": n})),
            ..Record::new(server.cx().now, Event::TokenIssue, Outcome::Refused)
        };
        let write = WriteSet { audit_records: vec![record], ..WriteSet::default() };
        store.commit(writer, &[write]).await.unwrap();
    }
    let api = server.api_token("audit", "errand:audit").await;
    for (path, list) in
        [(format!("/tasks/{task}/trail?"), "steps"), (format!("/audit?task={task}&limit=1000&"), "items")]
    {
        let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (status, page) = server.admin_with(&api, Method::GET, &format!("{path}{after}"), None).await;
            assert_eq!(status, 200, "{page}");
            let text = |item: &Value| item["record"].to_string();
            let texts = page[list].as_array().unwrap().iter().map(text).collect::<Vec<_>>();
            let bytes = texts.iter().map(String::len).sum::<usize>();
            assert!(bytes < 9 << 20, "{path}: {bytes} bytes in a page");
            seen.extend(texts);
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            after = format!("after={next}");
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((count, seen.len()), (REFUSED + 1, REFUSED + 1), "{path}: each record once");
        assert!(pages >= 2, "{path}: {pages} pages");
        let (status, body) = server.admin_with(&api, Method::GET, &format!("{path}after=nowhere"), None).await;
        assert_eq!(status, 400, "{body}");
    }
    server.stop().await;
}

async fn audit_search_matches_filters(server: Server) {
    let claims = decode_claims(&server.task_token().await);
    let other = server.user_token(json!({"client_id": "reader-client", "sub": "bob"}));
    let other = decode_claims(&server.issue_token("reader", &server.exchange_form(&other)).await);
    let now = Server::now();
    let at = |seconds: i64| {
        let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        at.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    let tokens = async |query: &str| {
        let records = server.audit_records(query).await;
        [&claims, &other].map(|claims| records.iter().any(|record| record["token"] == claims["jti"]))
    };
    assert_eq!(tokens("").await, [true, true]);
    assert_eq!(tokens(&format!("&task={}", claims["txn"].as_str().unwrap())).await, [true, false]);
    assert_eq!(tokens("&agent=reader").await, [false, true]);
    assert_eq!(tokens("&agent=planner").await, [true, false]);
    assert_eq!(tokens("&issuer=https://login.example.com&subject=bob").await, [false, true]);
    assert_eq!(tokens(&format!("&token={}", other["jti"].as_str().unwrap())).await, [false, true]);
    assert_eq!(tokens("&resource=https://files.example.com/mcp").await, [true, true]);
    assert_eq!(tokens("&resource=https://notes.example.com/mcp").await, [false, false]);
    assert_eq!(tokens("&event=token.issue&outcome=done").await, [true, true]);
    assert_eq!(tokens("&event=token.issue&outcome=refused").await, [false, false]);
    assert_eq!(tokens("&event=key.rotate").await, [false, false]);
    let request_id = server.audit_records("&agent=reader").await[0]["request_id"].as_str().unwrap().to_owned();
    assert_eq!(tokens(&format!("&request_id={request_id}")).await, [false, true]);
    assert_eq!(server.audit_records("&request_id=r-unknown").await, Vec::<Value>::new());
    // A token is found by every agent of its chain.
    let root = server.task_token().await;
    let handed = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let part = form_with_changes(&server.exchange_form(&handed), &[("purpose", "")]);
    let part = decode_claims(&server.issue_token("reader", &part).await);
    let found = server.audit_records(&format!("&agent=planner&token={}", part["jti"].as_str().unwrap())).await;
    assert_eq!((found.len(), &found[0]["agents"]), (1, &json!(["reader", "planner"])));
    assert_eq!(found[0]["client"], "reader");
    // A value that no store can search for is an invalid request, not an outage.
    let nul = errand::domain::encode_base64url(br#"["https://login.example.com","a\u0000b","planner"]"#);
    for list in ["grants", "tasks", "tokens", "revocations", "audit"] {
        let (status, body) = server.admin(Method::GET, &format!("/{list}?after={nul}"), None).await;
        assert_eq!(status, 400, "{list}: {body}");
    }
    for bad in ["token=x", "event=issue", "outcome=", "outcome=Done", "request_id=a%20b", "agent=a%00", "resource=%00"]
    {
        let (status, body) = server.admin(Method::GET, &format!("/audit?{bad}"), None).await;
        assert_eq!(status, 400, "{bad}: {body}");
    }
    assert_eq!(tokens(&format!("&from={}", at(now - 60))).await, [true, true]);
    assert_eq!(tokens(&format!("&until={}", at(now - 60))).await, [false, false]);
    // The time and the event are repeated beside the chained text, in the form of a JSON API.
    let (_, list) = server.admin(Method::GET, "/audit?agent=reader", None).await;
    for item in list["items"].as_array().unwrap() {
        let (chained, record) = (&item["chained"], &item["record"]);
        assert_eq!(item["at"], at(record["at"].as_i64().unwrap()));
        assert_eq!((&item["event"], &item["outcome"]), (&record["event"], &record["outcome"]));
        assert_eq!((&item["writer"], &item["n"]), (&chained["writer"], &chained["n"]));
        let hash = ring::digest::digest(&ring::digest::SHA256, chained.to_string().as_bytes());
        assert_eq!(item["hash"], errand::domain::encode_base64url(hash.as_ref()), "the shown text is the hashed text");
    }
    // Pagination returns the same records.
    let mut paged = Vec::new();
    let mut after = String::new();
    let whole = server.audit_records("&agent=reader").await;
    loop {
        let path = format!("/audit?agent=reader&limit=1{after}");
        let (status, page) = server.admin(Method::GET, &path, None).await;
        assert_eq!(status, 200, "{page}");
        paged.extend(page["items"].as_array().unwrap().iter().map(|item| item["record"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(paged, whole);
    server.stop().await;
}

async fn tampering_is_detected(server: Server) {
    for _ in 0..5 {
        server.task_token().await;
    }
    // A stopped server has written all its records.
    let (store, config) = (std::sync::Arc::clone(&server.store), std::sync::Arc::clone(&server.config));
    let other = server.replica().await;
    other.task_token().await;
    other.stop().await;
    server.stop().await;
    let application =
        errand::bootstrap::Application::build(&config, errand::bootstrap::MigrationPolicy::Always).await.unwrap();
    let verify = async || {
        let cx = application.system_context().unwrap();
        application.service.verify_audit(&[], &cx).await.unwrap()
    };
    let clean = verify().await;
    assert!(clean.findings.is_empty() && clean.chains >= 2 && clean.records >= 6, "{clean:?}");
    let row = "writer = (SELECT writer FROM audit GROUP BY writer HAVING count(*) > 4 ORDER BY writer LIMIT 1)";
    for (name, change, undo) in [
        (
            "an edited text",
            format!("UPDATE audit SET body = replace(body, 'token.issue', 'token.forge') WHERE n = 3 AND {row}"),
            format!("UPDATE audit SET body = replace(body, 'token.forge', 'token.issue') WHERE n = 3 AND {row}"),
        ),
        (
            "an edited search column",
            format!("UPDATE audit SET event = 'key.rotate' WHERE n = 4 AND {row}"),
            format!("UPDATE audit SET event = 'token.issue' WHERE n = 4 AND {row}"),
        ),
        (
            "an edited time",
            format!("UPDATE audit SET occurred_at = occurred_at + 1 WHERE n = 4 AND {row}"),
            format!("UPDATE audit SET occurred_at = occurred_at - 1 WHERE n = 4 AND {row}"),
        ),
        (
            "an edited hash",
            format!("UPDATE audit SET hash = 'x' || hash WHERE n = 2 AND {row}"),
            format!("UPDATE audit SET hash = substr(hash, 2) WHERE n = 2 AND {row}"),
        ),
        (
            "a row at another position",
            format!("UPDATE audit SET n = n + 1000000 WHERE n = 3 AND {row}"),
            format!("UPDATE audit SET n = n - 1000000 WHERE n = 1000003 AND {row}"),
        ),
        (
            "another chain head",
            format!("UPDATE audit_writers SET n = n + 1 WHERE {row}"),
            format!("UPDATE audit_writers SET n = n - 1 WHERE {row}"),
        ),
    ] {
        assert_eq!(store.tamper(&change).await, 1, "{name}");
        let report = verify().await;
        assert_eq!(report.findings.len(), 1, "{name}: {report:?}");
        assert_eq!(store.tamper(&undo).await, 1, "{name}");
        assert!(verify().await.findings.is_empty(), "{name}: undone");
    }
    // Two rows that are swapped.
    let (a, b) = ("n = 2", "n = 3");
    for (from, to) in [(a, "n = 900002"), (b, "n = 2"), ("n = 900002", "n = 3")] {
        assert_eq!(store.tamper(&format!("UPDATE audit SET {to} WHERE {from} AND {row}")).await, 1);
    }
    assert_eq!(verify().await.findings.len(), 1);
    for (from, to) in [("n = 3", "n = 900002"), ("n = 2", "n = 3"), ("n = 900002", "n = 2")] {
        assert_eq!(store.tamper(&format!("UPDATE audit SET {to} WHERE {from} AND {row}")).await, 1);
    }
    assert!(verify().await.findings.is_empty());
    // A forged record after the end of the chain.
    let columns =
        "body, personal, hash, epoch, mac, occurred_at, event, outcome, requester_issuer, requester_subject, task";
    let end = format!("n = (SELECT max(n) FROM audit WHERE {row}) AND {row}");
    let forge =
        format!("INSERT INTO audit (writer, n, {columns}) SELECT writer, n + 1, {columns} FROM audit WHERE {end}");
    assert_eq!(store.tamper(&forge).await, 1);
    assert_eq!(verify().await.findings.len(), 1, "a forged record");
    assert_eq!(store.tamper(&format!("DELETE FROM audit WHERE {end}")).await, 1);
    assert!(verify().await.findings.is_empty());
    // Removed records are detected: the end, then one in the middle.
    let last = format!("DELETE FROM audit WHERE n = (SELECT max(n) FROM audit WHERE {row}) AND {row}");
    assert_eq!(store.tamper(&last).await, 1);
    assert_eq!(verify().await.findings.len(), 1, "the end");
    assert_eq!(store.tamper(&format!("DELETE FROM audit WHERE n = 2 AND {row}")).await, 1);
    assert_eq!(verify().await.findings.len(), 1, "the middle");
    application.service.shutdown().await;
}

/// Records that are written during a verification are not reported as tampering.
async fn verification_tolerates_concurrent_writes(server: Server) {
    let server = std::sync::Arc::new(server);
    let writing = {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move {
            for _ in 0..150 {
                server.introspect("not-a-token").await;
            }
        })
    };
    let mut records = 0;
    while !writing.is_finished() {
        let cx = server.application.system_context().unwrap();
        let found = server.application.service.verify_audit(&[], &cx).await.unwrap();
        assert!(found.findings.is_empty(), "{found:?}");
        assert!(found.records >= records, "the number of records never decreases");
        records = found.records;
    }
    writing.await.unwrap();
}
