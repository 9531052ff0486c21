//! Consent: where it is demanded, no token is issued without a recorded grant. Tokens rest on the
//! grant and end with it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use errand::{
    domain::{audit::WriterId, grants::Grant, id::GrantId},
    ports::{StateChange, WriteSet},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    server::{FILES, IDP, Server, decode_claims, form_with_changes, read_response},
    support::TestStore,
};

/// Runs each test on both stores, at a server whose resource `files` demands consent.
macro_rules! consent_tests {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::start_with_consent(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::start_with_consent(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

consent_tests!(
    exchange_without_grant_is_refused,
    withdrawn_grant_ends_its_tokens,
    task_depends_only_on_its_own_grant,
    no_token_outlives_grant_withdrawal,
    grant_creation_is_idempotent_and_listed,
    invalid_grant_is_rejected,
    grant_count_is_limited,
    withdraw_all_removes_every_grant,
    later_consent_requirement_applies_to_derived_tokens,
);

pub async fn start_with_consent(store: TestStore) -> Server {
    let edit = |text: String| {
        let text =
            text.replace("trust_domain =", "consent_uri = \"https://portal.example.com/grants\"\ntrust_domain =");
        text.replace("id = \"files\"\n", "id = \"files\"\nconsent = \"required\"\n")
    };
    Server::start_edited(store, edit).await
}

pub fn expiry_in(seconds: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(Server::now() + seconds).unwrap();
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

pub fn details(tools: &[&str]) -> Value {
    let one =
        |tool: &&str| json!({"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": tool});
    tools.iter().map(one).collect()
}

/// Returns alice's grant to the planner.
fn grant_body(tools: &[&str], seconds: i64) -> Value {
    let until = expiry_in(seconds);
    json!({"issuer": IDP, "subject": "alice", "agent": "planner", "until": until, "authorization_details": details(tools)})
}

const READ_TOOLS: [&str; 2] = ["list_files", "read_file"];

async fn create_grant(server: &Server, grant: Value) -> String {
    let (status, body) = server.admin(Method::POST, "/grants", Some(grant)).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn withdraw_grant(server: &Server, id: &str) -> u16 {
    server.admin(Method::DELETE, &format!("/grants/{id}"), None).await.0.as_u16()
}

async fn exchange_without_grant_is_refused(server: Server) {
    let form = server.exchange_form(&server.user_token(json!({})));
    let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("interaction_required")), "{body}");
    assert_eq!(body["interaction_uri"], "https://portal.example.com/grants");
    let wanted = body["authorization_details"].as_array().unwrap();
    assert_eq!(wanted.iter().map(|d| &d["identifier"]).collect::<Vec<_>>(), READ_TOOLS);
    let (_, trail) = server.admin(Method::GET, "/audit?event=token.issue&outcome=refused", None).await;
    assert_eq!(trail["items"].as_array().unwrap().len(), 1, "{trail}");
    // The authority in the answer can be granted as it is, and then suffices. A smaller grant does
    // not.
    let mut grant = grant_body(&[], 600);
    grant["authorization_details"] = json!([wanted[0]]);
    create_grant(&server, grant.clone()).await;
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.0, 400);
    grant["authorization_details"] = json!(wanted);
    let id = create_grant(&server, grant).await;
    let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(decode_claims(token)["grant"], json!(id));
    assert_eq!(server.introspect(token).await["grant"], json!(id));
    // The grant covers only alice, the planner and reading.
    let bob = server.exchange_form(&server.user_token(json!({"sub": "bob"})));
    let write = form_with_changes(&form, &[("scope", "files:read files:write")]);
    for (agent, form) in [
        ("planner", bob),
        ("planner", write),
        ("reader", server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})))),
    ] {
        let (status, body) = server.request_token_as(agent, &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("interaction_required")), "{agent} {body}");
    }
    // Without a demand, no consent is needed.
    let notes = form_with_changes(
        &form,
        &[
            ("resource", crate::server::NOTES),
            ("scope", "notes:read"),
            ("subject_token", &server.user_token(json!({"scope": "notes:read"}))),
        ],
    );
    assert_eq!(server.post_as_planner("/oauth2/token", &notes).await.0, 200);
    server.stop().await;
}

async fn withdrawn_grant_ends_its_tokens(server: Server) {
    let other = server.replica().await;
    let short = create_grant(&server, grant_body(&READ_TOOLS, 280)).await;
    let form = server.exchange_form(&server.user_token(json!({})));
    let token = server.issue_token("planner", &form).await;
    let claims = decode_claims(&token);
    assert!(claims["exp"].as_i64().unwrap() <= Server::now() + 280, "no token outlives its grant");
    let handed = server.issue_token("planner", &server.delegation_form(&token, "reader")).await;
    let child =
        other.issue_token("reader", &form_with_changes(&server.exchange_form(&handed), &[("purpose", "")])).await;
    assert_eq!((&decode_claims(&child)["grant"], &decode_claims(&handed)["grant"]), (&json!(short), &json!(short)));
    // A new grant does not extend the first one: its tokens end with it.
    let second = create_grant(&server, grant_body(&READ_TOOLS, 250)).await;
    assert!(server.is_active(&token).await && other.is_active(&child).await);
    assert_eq!(withdraw_grant(&server, &short).await, 204);
    for at in [&server, &other] {
        assert!(!at.is_active(&token).await && !at.is_active(&child).await);
    }
    let again = form_with_changes(&server.exchange_form(&handed), &[("purpose", "")]);
    assert_eq!(other.request_token_as("reader", &again).await.0, 400);
    let task = claims["txn"].as_str().unwrap();
    let (_, task) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
    assert_eq!((&task["state"], &task["grant"]), (&json!("revoked"), &json!(short)), "{task}");
    assert_eq!(task["last_transition"]["by"], format!("grant:{short}"));
    let next = other.issue_token("planner", &form).await;
    assert_eq!(decode_claims(&next)["grant"], json!(second));
    assert!(server.is_active(&next).await);
    assert_eq!(withdraw_grant(&other, &short).await, 404, "the withdrawn grant is not found");
    let all = format!("/grants?issuer={IDP}&subject=alice&agent=planner");
    assert_eq!(other.admin(Method::DELETE, &all, None).await.0, 204);
    assert!(!server.is_active(&next).await);
    assert_eq!(other.admin(Method::DELETE, &all, None).await.0, 404);
    other.stop().await;
    server.stop().await;
}

async fn task_depends_only_on_its_own_grant(server: Server) {
    let first = create_grant(&server, grant_body(&READ_TOOLS, 600)).await;
    let form = server.exchange_form(&server.user_token(json!({})));
    let task = decode_claims(&server.issue_token("planner", &form).await)["txn"].as_str().unwrap().to_owned();
    let join = form_with_changes(&form, &[("purpose", ""), ("task_id", &task)]);
    // A longer grant is added: a joining exchange keeps the grant of the task.
    let second = create_grant(&server, grant_body(&READ_TOOLS, 900)).await;
    assert_eq!(decode_claims(&server.issue_token("planner", &join).await)["grant"], json!(first));
    assert_eq!(decode_claims(&server.issue_token("planner", &form).await)["grant"], json!(second));
    assert_eq!(withdraw_grant(&server, &first).await, 204);
    let (status, body) = server.post_as_planner("/oauth2/token", &join).await;
    assert_eq!(status, 400, "{body}");
    server.stop().await;
}

const RACE_ROUNDS: usize = 30;

/// Runs one round: four clients at two replicas exchange on a grant, one request after the other.
/// In between, the grant is withdrawn. After the answer, no token that rests on the grant is
/// active, whenever it was issued.
async fn no_token_outlives_grant_withdrawal(server: Server) {
    let other = Arc::new(server.replica().await);
    let server = Arc::new(server);
    let admin = server.api_token("ops", "errand:admin").await;
    let (mut issued, mut refused) = (0, 0);
    for round in 0..RACE_ROUNDS {
        let mut wanted = grant_body(&READ_TOOLS, 600);
        (wanted["subject"], wanted["agent"]) = (json!(format!("alice-{round}")), json!("reader"));
        let (status, body) = server.admin_with(&admin, Method::POST, "/grants", Some(wanted)).await;
        assert_eq!(status, 201, "{body}");
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for n in 0..4 {
            let (at, stop) = (Arc::clone(if n % 2 == 0 { &server } else { &other }), Arc::clone(&stop));
            let user = server.user_token(json!({"client_id": "reader-client", "sub": format!("alice-{round}")}));
            clients.spawn(async move {
                let (mut tokens, mut refused) = (Vec::new(), 0);
                while !stop.load(Ordering::SeqCst) && tokens.len() + refused < 40 {
                    let (status, body) = at.post_as("reader", "/oauth2/token", &at.exchange_form(&user)).await;
                    match status.as_u16() {
                        200 => tokens.push(body["access_token"].as_str().unwrap().to_owned()),
                        _ => {
                            assert_eq!(body["error"], "interaction_required", "{body}");
                            refused += 1;
                        }
                    }
                }
                (tokens, refused)
            });
        }
        let at = if round % 2 == 0 { &server } else { &other };
        let path = format!("/grants/{}", body["id"].as_str().unwrap());
        assert_eq!(at.admin_with(&admin, Method::DELETE, &path, None).await.0, 204);
        stop.store(true, Ordering::SeqCst);
        while let Some(done) = clients.join_next().await {
            let (tokens, no) = done.unwrap();
            (issued, refused) = (issued + tokens.len(), refused + no);
            for token in tokens {
                for at in [&server, &other] {
                    assert!(!at.is_active(&token).await, "round {round}: a token lives");
                }
            }
        }
    }
    assert!(issued > 0 && refused > 0, "it was no race: {issued} issued, {refused} refused");
    // Maintenance ends tasks that were opened at the last moment.
    server.application.service.collect_garbage(&server.application.system_context().unwrap()).await.unwrap();
    let (_, tasks) = server.admin(Method::GET, "/tasks?state=active&limit=1000", None).await;
    assert_eq!(tasks["items"], json!([]));
}

async fn grant_creation_is_idempotent_and_listed(server: Server) {
    let token = server.api_token("ops", "errand:admin").await;
    let post = async |key: &str, body: &Value| {
        let request = server.post("/v1/admin/grants").bearer_auth(&token).header("idempotency-key", key).json(body);
        read_response(request.send().await.unwrap()).await
    };
    let wanted = grant_body(&READ_TOOLS, 600);
    let (status, first) = post("k", &wanted).await;
    assert_eq!(status, 201, "{first}");
    assert_eq!((&first["requester"]["subject"], &first["by"]), (&json!("alice"), &json!("admin:ops")));
    assert_eq!(post("k", &wanted).await.1, first, "a repeated request returns the same grant");
    let mut more = wanted.clone();
    more["authorization_details"] = details(&["read_file"]);
    assert_eq!(post("k", &more).await.0, 422, "the key is for another authority");
    assert_ne!(post("l", &wanted).await.1["id"], first["id"]);
    assert_eq!(withdraw_grant(&server, first["id"].as_str().unwrap()).await, 204);
    let (status, gone) = post("k", &wanted).await;
    assert_eq!(status, 422, "{gone}");
    assert!(gone["detail"].as_str().unwrap().contains("was withdrawn"), "{gone}");
    let (_, first) = post("n", &wanted).await;
    assert_eq!(post("n", &wanted).await.1, first);
    let mut plain = wanted;
    plain.as_object_mut().unwrap().remove("authorization_details");
    let (_, plain) = post("m", &plain).await;
    assert_eq!(plain["authorization_details"], Value::Null, "the grant names the agent without an authority");
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/grants?limit=1&issuer={IDP}&subject=alice{next}");
        let (_, page) = server.admin_with(&token, Method::GET, &path, None).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|g| g["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(after) => next = format!("&after={after}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let (_, none) = server.admin_with(&token, Method::GET, &format!("/grants?issuer={IDP}&subject=bob"), None).await;
    assert_eq!(none["items"], json!([]));
    server.stop().await;
}

async fn invalid_grant_is_rejected(server: Server) {
    let token = server.api_token("ops", "errand:admin").await;
    let good = grant_body(&READ_TOOLS, 600);
    let one = |name: &str, value: Value| {
        let mut grant = good.clone();
        grant[name] = value;
        grant
    };
    let detail = |change: Value| {
        let mut detail = details(&["read_file"])[0].clone();
        for (name, value) in change.as_object().unwrap() {
            detail[name] = value.clone();
        }
        one("authorization_details", json!([detail]))
    };
    for (what, body, want) in [
        ("nothing", one("authorization_details", json!([])), 400),
        ("no list", one("authorization_details", json!({})), 400),
        ("a text", one("authorization_details", json!("read_file")), 400),
        (
            "no place",
            {
                let mut grant = good.clone();
                grant["authorization_details"][0].as_object_mut().unwrap().remove("locations");
                grant
            },
            400,
        ),
        ("an unknown member", detail(json!({"x": 1})), 400),
        ("an unknown constraint", detail(json!({"constraints": {"path": {"near": "x"}}})), 400),
        ("too deep", detail(json!({"constraints": {"path": {"equals": [[[[[[[[[[[[1]]]]]]]]]]]]}}})), 400),
        ("an unknown tool", detail(json!({"identifier": "format_disk"})), 422),
        ("an unknown place", detail(json!({"locations": ["https://elsewhere.example/mcp"]})), 422),
        ("an unknown agent", one("agent", json!("unknown-agent")), 404),
        ("a resource as agent", one("agent", json!("files")), 404),
        ("the past", one("until", json!(expiry_in(-1))), 400),
        ("no time", one("until", json!("tomorrow")), 400),
        ("a number for a time", one("until", json!(5)), 400),
        ("no issuer", one("issuer", json!("x")), 400),
        ("a member more", one("id", json!("01970000-0000-7000-8000-00000000abcd")), 400),
    ] {
        let (status, answer) = server.admin_with(&token, Method::POST, "/grants", Some(body)).await;
        assert_eq!(status, want, "{what}: {answer}");
    }
    for id in ["x", "01970000-0000-7000-8000-00000000abcd", "%00"] {
        assert_eq!(withdraw_grant(&server, id).await, 404, "{id}");
    }
    let audit = server.api_token("audit", "errand:audit").await;
    assert_eq!(server.admin_with(&audit, Method::POST, "/grants", Some(good.clone())).await.0, 403);
    let planner = server.api_token("planner", "errand:tasks").await;
    assert_eq!(
        server.admin_with(&planner, Method::POST, "/grants", Some(good)).await.0,
        403,
        "an agent can't create a grant"
    );
    server.stop().await;
}

/// Sends the same request many times concurrently. Returns how many were accepted; the others
/// exceeded the limit.
async fn count_created(server: &Arc<Server>, admin: &str, path: &str, body: &Value, many: usize) -> usize {
    let mut sent = JoinSet::new();
    for _ in 0..many {
        let (server, admin, path, body) = (Arc::clone(server), admin.to_owned(), path.to_owned(), body.clone());
        sent.spawn(async move { server.admin_with(&admin, Method::POST, &path, Some(body)).await });
    }
    let mut taken = 0;
    while let Some(answer) = sent.join_next().await {
        match answer.unwrap() {
            (status, _) if status == 201 => taken += 1,
            (status, body) => {
                assert_eq!(status, 422, "{body}");
                assert!(body["detail"].as_str().unwrap().contains("withdraw some"), "{body}");
            }
        }
    }
    taken
}

async fn grant_count_is_limited(server: Server) {
    let server = Arc::new(server);
    let admin = server.api_token("ops", "errand:admin").await;
    let wanted = grant_body(&READ_TOOLS, 6000);
    assert_eq!(count_created(&server, &admin, "/grants", &wanted, 60).await, 60);
    assert_eq!(count_created(&server, &admin, "/grants", &wanted, 60).await, 40, "concurrent");
    assert_eq!(count_created(&server, &admin, "/grants", &wanted, 1).await, 0);
    let mut others = wanted.clone();
    others["agent"] = json!("reader");
    assert_eq!(count_created(&server, &admin, "/grants", &others, 1).await, 1, "to another agent");
    // An emergency grant has a limit of its own, and is listed although the others last longer.
    let glass = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "reason": "on fire",
        "authorization_details": details(&["write_file"])});
    let form = server.exchange_form(&server.user_token(json!({})));
    let form = form_with_changes(&form, &[("scope", "files:write")]);
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.1["error"], "interaction_required");
    assert_eq!(count_created(&server, &admin, "/break-glass", &glass, 1).await, 1);
    let token = server.issue_token("planner", &form).await;
    assert_eq!(decode_claims(&token)["break_glass"], true);
    assert_eq!(count_created(&server, &admin, "/break-glass", &glass, 25).await, 19);
    // A withdrawn grant no longer counts.
    let (_, list) = server.admin_with(&admin, Method::GET, "/grants?agent=planner&limit=200", None).await;
    let list = list["items"].as_array().unwrap();
    assert_eq!(list.len(), 120);
    let is_plain = |grant: &&Value| grant["break_glass"] == false;
    let plain = list.iter().find(is_plain).unwrap()["id"].as_str().unwrap();
    assert_eq!(withdraw_grant(&server, plain).await, 204);
    assert_eq!(count_created(&server, &admin, "/grants", &wanted, 2).await, 1);
}

/// Withdraws any number of grants: more than the limit, and more than one page.
async fn withdraw_all_removes_every_grant(server: Server) {
    let id = create_grant(&server, grant_body(&READ_TOOLS, 600)).await;
    let store = server.open_store().await;
    let first = store.find_grant(id.parse().unwrap()).await.unwrap().unwrap();
    let more = (0..250).map(|n| Grant { id: GrantId::new(Uuid::from_u128(n)), ..first.clone() });
    let changes = more.map(Box::new).map(StateChange::PutGrant).collect();
    store
        .commit(WriterId(Uuid::from_u128(7)), &[WriteSet { state_changes: changes, ..WriteSet::default() }])
        .await
        .unwrap();
    let form = server.exchange_form(&server.user_token(json!({})));
    let token = server.issue_token("planner", &form).await;
    let all = format!("/grants?issuer={IDP}&subject=alice&agent=planner");
    assert_eq!(server.admin(Method::DELETE, &all, None).await.0, 204);
    assert!(!server.is_active(&token).await);
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.1["error"], "interaction_required");
    assert_eq!(server.admin(Method::GET, "/grants?agent=planner", None).await.1["items"], json!([]));
    server.stop().await;
}

/// A derived token needs consent too, if consent was not yet demanded when its parent was issued.
async fn later_consent_requirement_applies_to_derived_tokens(server: Server) {
    const VAULT: &str = "https://vault.example.com";
    let vault = |consent: &str| {
        json!({"id": "vault", "uri": VAULT, "authentication": {"method": "client_secret_basic"}, "consent": consent,
            "tools": [{"name": "open", "scope": "vault:read", "effect": "read", "risk": "low"}]})
    };
    let agent = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}, "known_as": {(IDP): ["guest-client"]},
        "access": [{"resource": "vault", "scopes": ["vault:read"]}]});
    server.put_object("/resources/vault", vault("none")).await;
    server.put_object("/agents/guest", agent).await;
    let secret = server.create_secret("guest").await;
    let exchange = async |subject: &str, purpose: &str| {
        let asks = [("resource", VAULT), ("scope", "vault:read"), ("purpose", purpose)];
        let form = form_with_changes(&server.exchange_form(subject), &asks);
        read_response(server.post("/oauth2/token").basic_auth("guest", Some(&secret)).form(&form).send().await.unwrap())
            .await
    };
    let token = async |subject: &str, client: &str| {
        let user = server.user_token(json!({"sub": subject, "client_id": client, "scope": "vault:read"}));
        let (status, body) = exchange(&user, "errands").await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    };
    let tools = json!([{"type": "mcp_tool", "locations": [VAULT], "actions": ["tools/call"], "identifier": "open"}]);
    let grant_to_guest = |subject: &str, details: Value| {
        let grant = json!({"issuer": IDP, "subject": subject, "agent": "guest", "until": expiry_in(600)});
        crate::server::with_changes(grant, json!({"authorization_details": details}))
    };
    // Only the grants name the guest. dave has none, and needs none.
    create_grant(&server, grant_to_guest("alice", Value::Null)).await;
    let bobs = create_grant(&server, grant_to_guest("bob", tools)).await;
    let parents = [
        (token("alice", "elsewhere").await, false),
        (token("bob", "elsewhere").await, true),
        (token("dave", "guest-client").await, false),
    ];
    for (parent, _) in &parents {
        assert_eq!(exchange(parent, "").await.0, 200);
    }
    server.put_object("/resources/vault", vault("required")).await;
    for (parent, consented) in &parents {
        let (status, body) = exchange(parent, "").await;
        let want = if *consented { (200, &Value::Null) } else { (400, &json!("interaction_required")) };
        assert_eq!((status.as_u16(), &body["error"]), want, "{body}");
    }
    assert_eq!(withdraw_grant(&server, &bobs).await, 204);
    assert_eq!(exchange(&parents[1].0, "").await.0, 400);
    server.stop().await;
}
