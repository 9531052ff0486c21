//! Acts of admins that need a second person: two operators that the configuration file declares.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    grants::consent::expiry_in,
    mcp_server::{McpServerFixture, ServerBehavior},
    server::{FILES, IDP, Server, read_response, secret},
};

on_both_stores!(
    second_operator_approves_each_protected_act,
    made_admin_and_host_token_count_as_no_person,
    approval_covers_one_state_and_active_persons,
    restriction_needs_one_operator,
    catalogue_is_weakened_by_two,
);

/// Declares a second operator, which puts the rule into effect.
async fn with_second_operator(server: &Server) -> Server {
    let folder = server.config_file();
    let file = folder.with_file_name("boss.secret");
    std::fs::copy(folder.with_file_name("ops.secret"), &file).unwrap();
    std::fs::write(&file, secret("boss")).unwrap();
    let boss = "\n[[admins]]\nid = \"boss\"\nrole = \"operator\"\n\
        authentication = { method = \"client_secret_basic\", secret_file = \"boss.secret\" }\n";
    server.restarted(|text| text + boss).await
}

struct Operator(String);

impl Operator {
    async fn of(server: &Server, name: &str) -> Self {
        Self(server.api_token(name, "errand:admin errand:audit").await)
    }

    async fn send(
        &self,
        at: &Server,
        (method, path, body): &(Method, String, Value),
        approval: Option<&str>,
    ) -> (u16, Value) {
        let request = at.request(method.clone(), &format!("/v1/admin{path}")).bearer_auth(&self.0);
        let request = if body.is_null() { request } else { request.json(body) };
        let request = approval.into_iter().fold(request, |request, text| request.header("errand-approval", text));
        let (status, body) = read_response(request.send().await.unwrap()).await;
        (status.as_u16(), body)
    }

    async fn approve(&self, at: &Server, request: &Value, is_dry_run: bool) -> (u16, Value) {
        let body = json!({"request": request, "dry_run": is_dry_run});
        self.send(at, &(Method::POST, "/approvals".to_owned(), body), None).await
    }
}

fn problem(body: &Value) -> &str {
    body["type"].as_str().and_then(|text| text.strip_prefix("urn:errand:problem:")).unwrap_or_default()
}

fn admin_body(id: &str) -> Value {
    json!({"id": id, "role": "operator", "authentication": {"method": "client_secret_basic"}})
}

fn grant_of(tool: &str) -> (Method, String, Value) {
    let details = json!([{"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": tool}]);
    let body = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "until": expiry_in(600),
        "authorization_details": details});
    (Method::POST, "/grants".to_owned(), body)
}

async fn second_operator_approves_each_protected_act(server: Server) {
    let other = with_second_operator(&server).await;
    let (ops, boss) = (Operator::of(&other, "ops").await, Operator::of(&other, "boss").await);
    let block = |verb: &str| {
        let body = json!({"kind": "agent", "id": "reader", "verb": verb, "reason": "for the test"});
        (Method::POST, "/revocations".to_owned(), body)
    };
    // Ending needs one person, and so do grants without a destructive tool.
    assert_eq!(ops.send(&other, &block("block"), None).await.0, 200);
    assert_eq!(ops.send(&other, &grant_of("read_file"), None).await.0, 201);
    let everything = {
        let (method, path, mut body) = grant_of("read_file");
        body.as_object_mut().unwrap().remove("authorization_details");
        (method, path, body)
    };
    let acts = [
        (Method::PUT, "/admins/night".to_owned(), admin_body("night")),
        (Method::POST, "/clients/night/secret".to_owned(), Value::Null),
        block("unblock"),
        grant_of("delete_file"),
        everything,
        (
            Method::POST,
            format!("/issuers/{}/keys/refresh", IDP.replace("://", "%3A%2F%2F")),
            json!({"reason": "for the test", "restore": ["k1"]}),
        ),
    ];
    let mut last: Option<String> = None;
    for act in &acts {
        let (status, refused) = ops.send(&other, act, None).await;
        assert_eq!((status, problem(&refused)), (409, "approval_required"), "{act:?}: {refused}");
        let request = &refused["approval_request"];
        // The requesting operator can't approve, and an altered request is no request.
        let (status, own) = ops.approve(&other, request, false).await;
        assert_eq!((status, problem(&own)), (409, "approval_invalid"), "{own}");
        let altered = json!(format!("x{}", request.as_str().unwrap()));
        assert_eq!(boss.approve(&other, &altered, false).await.0, 400);
        let (status, shown) = boss.approve(&other, request, true).await;
        assert_eq!((status, &shown["by"], shown.get("approval")), (200, &json!("admin:ops"), None), "{shown}");
        let (status, given) = boss.approve(&other, request, false).await;
        assert_eq!((status, &given["act"]), (200, &shown["act"]), "{given}");
        let approval = given["approval"].as_str().unwrap();
        // It is for this act and this operator, and used once.
        if let Some(earlier) = &last {
            let (status, body) = ops.send(&other, act, Some(earlier.as_str())).await;
            assert_eq!((status, problem(&body)), (409, "approval_invalid"), "{body}");
        }
        let (status, body) = boss.send(&other, act, Some(approval)).await;
        assert_eq!((status, problem(&body)), (409, "approval_invalid"), "{body}");
        let (status, body) = ops.send(&other, act, Some(approval)).await;
        assert!(matches!(status, 200 | 201), "{act:?}: {body}");
        let (status, again) = ops.send(&other, act, Some(approval)).await;
        // To put an admin as it is changes nothing, and needs no approval.
        let want = if act.0 == Method::PUT { 200 } else { 409 };
        assert_eq!(status, want, "{act:?}: {again}");
        last = Some(approval.to_owned());
    }
    let (_, trail) = other.admin(Method::GET, "/audit?event=registry.change&outcome=done", None).await;
    let names = |item: &&Value| item["record"]["approved_by"] == "admin:boss" && item["record"]["admin"] == "admin:ops";
    assert_eq!(trail["items"].as_array().unwrap().iter().filter(names).count(), 1, "{trail}");
    let (_, trail) = other.admin(Method::GET, "/audit?event=admin.approve&outcome=done", None).await;
    assert_eq!(trail["items"].as_array().unwrap().len(), acts.len(), "{trail}");
    // One operator disables an admin.
    let mut disabled = admin_body("night");
    disabled["disabled"] = json!(true);
    assert_eq!(ops.send(&other, &(Method::PUT, "/admins/night".to_owned(), disabled), None).await.0, 200);
    other.stop().await;
    server.stop().await;
}

async fn made_admin_and_host_token_count_as_no_person(server: Server) {
    // While one operator is declared, one is sufficient.
    let made = (Method::PUT, "/admins/made".to_owned(), admin_body("made"));
    let ops = Operator::of(&server, "ops").await;
    assert_eq!(ops.send(&server, &made, None).await.0, 201);
    let (_, secret) = ops.send(&server, &(Method::POST, "/clients/made/secret".to_owned(), Value::Null), None).await;
    let other = with_second_operator(&server).await;
    let form = [("grant_type", "client_credentials"), ("scope", "errand:admin")];
    let request = other.post("/oauth2/token").basic_auth("made", secret["client_secret"].as_str()).form(&form);
    let (_, token) = read_response(request.send().await.unwrap()).await;
    let made = Operator(token["access_token"].as_str().unwrap().to_owned());
    let host = other.application.service.issue_bootstrap_token(&other.cx()).await.unwrap();
    let host = Operator(host.token.expose().to_owned());
    let (ops, boss) = (Operator::of(&other, "ops").await, Operator::of(&other, "boss").await);
    let act = (Method::PUT, "/admins/night".to_owned(), admin_body("night"));
    let (_, refused) = ops.send(&other, &act, None).await;
    for one in [&made, &host] {
        let (status, body) = one.send(&other, &act, None).await;
        assert_eq!((status, problem(&body)), (409, "approval_invalid"), "{body}");
        let (status, body) = one.approve(&other, &refused["approval_request"], false).await;
        assert_eq!((status, problem(&body)), (409, "approval_invalid"), "{body}");
    }
    // The review of an emergency grant is an act of a second person too.
    let (_, path, mut body) = grant_of("read_file");
    assert_eq!(path, "/grants");
    body.as_object_mut().unwrap().remove("until");
    body["reason"] = json!("for the test");
    let (status, glass) = ops.send(&other, &(Method::POST, "/break-glass".to_owned(), body), None).await;
    assert_eq!(status, 201, "{glass}");
    let id = glass["id"].as_str().unwrap();
    assert_eq!(ops.send(&other, &(Method::DELETE, format!("/grants/{id}"), Value::Null), None).await.0, 204);
    let review = (Method::POST, format!("/break-glass/{id}/review"), json!({"note": "seen"}));
    for (one, want) in [(&made, 409), (&host, 409), (&ops, 409), (&boss, 200)] {
        let (status, body) = one.send(&other, &review, None).await;
        assert_eq!(status, want, "{body}");
    }
    // An operator may have made a grant in the name of an admin who is no person.
    let mut body = grant_of("list_files").2;
    body.as_object_mut().unwrap().remove("until");
    body["reason"] = json!("for the test");
    let (status, glass) = made.send(&other, &(Method::POST, "/break-glass".to_owned(), body), None).await;
    assert_eq!(status, 201, "{glass}");
    let id = glass["id"].as_str().unwrap();
    assert_eq!(ops.send(&other, &(Method::DELETE, format!("/grants/{id}"), Value::Null), None).await.0, 204);
    let review = (Method::POST, format!("/break-glass/{id}/review"), json!({"note": "seen"}));
    let (status, refused) = ops.send(&other, &review, None).await;
    assert_eq!((status, problem(&refused)), (409, "approval_required"), "{refused}");
    let (_, given) = boss.approve(&other, &refused["approval_request"], false).await;
    let (status, reviewed) = ops.send(&other, &review, given["approval"].as_str()).await;
    assert_eq!(status, 200, "{reviewed}");
    other.stop().await;
    server.stop().await;
}

/// Requests an act as `first`, and returns the approval of `second`.
async fn approved(at: &Server, act: &(Method, String, Value), first: &Operator, second: &Operator) -> String {
    let (status, refused) = first.send(at, act, None).await;
    assert_eq!((status, problem(&refused)), (409, "approval_required"), "{act:?}: {refused}");
    let (status, given) = second.approve(at, &refused["approval_request"], false).await;
    assert_eq!(status, 200, "{given}");
    given["approval"].as_str().unwrap().to_owned()
}

fn block(kind: &str, id: &str, verb: &str) -> (Method, String, Value) {
    let body = json!({"kind": kind, "id": id, "verb": verb, "reason": format!("{verb} for the test")});
    (Method::POST, "/revocations".to_owned(), body)
}

async fn approval_covers_one_state_and_active_persons(server: Server) {
    let other = with_second_operator(&server).await;
    let (ops, boss) = (Operator::of(&other, "ops").await, Operator::of(&other, "boss").await);
    let put = |id: &str| (Method::PUT, format!("/admins/{id}"), admin_body(id));
    let refused_as = |(status, body): (u16, Value), want: &str| {
        assert_eq!((status, problem(&body)), (409, want), "{body}");
    };
    // The block was lifted and made again, so the approval is of another block.
    assert_eq!(ops.send(&other, &block("agent", "reader", "block"), None).await.0, 200);
    let unblock = block("agent", "reader", "unblock");
    let stale = approved(&other, &unblock, &ops, &boss).await;
    let used = approved(&other, &unblock, &ops, &boss).await;
    assert_eq!(ops.send(&other, &unblock, Some(&used)).await.0, 200);
    let mut again = block("agent", "reader", "block");
    again.2["reason"] = json!("another incident");
    assert_eq!(boss.send(&other, &again, None).await.0, 200);
    refused_as(ops.send(&other, &unblock, Some(&stale)).await, "approval_invalid");
    // Approvals of the same request are used once together.
    let (_, refused) = ops.send(&other, &unblock, None).await;
    let mut approvals = Vec::new();
    for _ in 0..2 {
        let (_, given) = boss.approve(&other, &refused["approval_request"], false).await;
        approvals.push(given["approval"].as_str().unwrap().to_owned());
    }
    assert_eq!(ops.send(&other, &unblock, Some(&approvals[0])).await.0, 200);
    assert_eq!(ops.send(&other, &again, None).await.0, 200);
    refused_as(ops.send(&other, &unblock, Some(&approvals[1])).await, "approval_invalid");
    // Of two requests at the same time with one approval, one is carried out.
    let secret = (Method::POST, "/clients/night/secret".to_owned(), Value::Null);
    let approval = approved(&other, &put("night"), &ops, &boss).await;
    assert_eq!(ops.send(&other, &put("night"), Some(&approval)).await.0, 201);
    let approval = approved(&other, &secret, &ops, &boss).await;
    let (one, two) =
        tokio::join!(ops.send(&other, &secret, Some(&approval)), ops.send(&other, &secret, Some(&approval)));
    let (done, lost) = if one.0 == 201 { (one, two) } else { (two, one) };
    assert_eq!(done.0, 201, "{done:?}");
    refused_as(lost, "approval_invalid");
    // The object changed since: another approval is needed to enable it again.
    let mut enabled = admin_body("night");
    enabled["authentication"] = json!({"method": "client_secret_post"});
    let enable = (Method::PUT, "/admins/night".to_owned(), enabled);
    let stale = approved(&other, &enable, &ops, &boss).await;
    let mut disabled = admin_body("night");
    disabled["disabled"] = json!(true);
    assert_eq!(boss.send(&other, &(Method::PUT, "/admins/night".to_owned(), disabled), None).await.0, 200);
    refused_as(ops.send(&other, &enable, Some(&stale)).await, "approval_invalid");
    // Of two approvals of one act, the second one does not repeat it after it was reversed.
    let keys = format!("/issuers/{}/keys/refresh", IDP.replace("://", "%3A%2F%2F"));
    let change = |member: &str| (Method::POST, keys.clone(), json!({"reason": "x", member: ["k1"]}));
    let restore = change("restore");
    let (one, two) = (approved(&other, &restore, &ops, &boss).await, approved(&other, &restore, &ops, &boss).await);
    assert_eq!(ops.send(&other, &restore, Some(&one)).await.0, 200);
    assert_eq!(boss.send(&other, &change("withdraw"), None).await.0, 200);
    refused_as(ops.send(&other, &restore, Some(&two)).await, "approval_invalid");
    // An approver who was blocked since does not count, nor does a request of one.
    let given = approved(&other, &put("day"), &ops, &boss).await;
    assert_eq!(ops.send(&other, &block("agent", "boss", "block"), None).await.0, 200);
    refused_as(ops.send(&other, &put("day"), Some(&given)).await, "approval_invalid");
    let unblock_boss = block("agent", "boss", "unblock");
    let (status, refused) = ops.send(&other, &unblock_boss, None).await;
    assert_eq!((status, problem(&refused)), (409, "approval_invalid"), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("there is only one"), "{refused}");
    other.stop().await;
    server.stop().await;
}

async fn restriction_needs_one_operator(server: Server) {
    let other = with_second_operator(&server).await;
    let (ops, boss) = (Operator::of(&other, "ops").await, Operator::of(&other, "boss").await);
    let keys = format!("/issuers/{}/keys/refresh", IDP.replace("://", "%3A%2F%2F"));
    for act in [
        block("agent", "reader", "suspend"),
        block("agent", "reader", "resume"),
        block("agent", "reader", "suspend"),
        block("agent", "reader", "block"),
        block("agent", "planner", "suspend"),
        block("resource", "files", "block"),
        (Method::POST, "/revocations".to_owned(), json!({"kind": "issuer", "id": IDP, "verb": "block", "reason": "x"})),
        (Method::POST, keys.clone(), json!({"reason": "x", "withdraw": ["k1"]})),
        (Method::POST, "/keys/rotate".to_owned(), Value::Null),
    ] {
        let (status, body) = ops.send(&other, &act, None).await;
        assert!((200..300).contains(&status), "{act:?}: {status} {body}");
    }
    // What another admin suspended is lifted by two.
    let resume = block("agent", "planner", "resume");
    let (status, refused) = boss.send(&other, &resume, None).await;
    assert_eq!((status, problem(&refused)), (409, "approval_required"), "{refused}");
    assert_eq!(ops.send(&other, &resume, None).await.0, 200);
    other.stop().await;
    server.stop().await;
}

async fn catalogue_is_weakened_by_two(server: Server) {
    let other = with_second_operator(&server).await;
    let (ops, boss) = (Operator::of(&other, "ops").await, Operator::of(&other, "boss").await);
    let shop = McpServerFixture::start(ServerBehavior::Stateless).await;
    shop.set_tools(&[("open", "Open the vault")]);
    let vault = |changes: Value| {
        let body = json!({"id": "vault", "uri": shop.uri, "allowed_networks": ["127.0.0.0/8"],
            "authentication": {"method": "client_secret_basic"}});
        (Method::PUT, "/resources/vault".to_owned(), crate::server::with_changes(body, changes))
    };
    let import = (Method::POST, "/resources/vault/catalogue/import".to_owned(), json!({}));
    let accept = |catalogue: &Value, spec: Value| {
        let tool = json!({"name": "open", "digest": catalogue["tools"][0]["observed"]["digest"]});
        let body = json!({"tools": [crate::server::with_changes(tool, spec)]});
        (Method::POST, "/resources/vault/catalogue/accept".to_owned(), body)
    };
    assert_eq!(ops.send(&other, &vault(json!({})), None).await.0, 201);
    let (_, first) = ops.send(&other, &import, None).await;
    let added = accept(&first, json!({"scope": "vault:open", "effect": "destructive"}));
    let (status, body) = ops.send(&other, &added, None).await;
    assert_eq!(status, 200, "the first definition: {body}");
    // Another definition.
    shop.set_tools(&[("open", "Open everything")]);
    let (_, second) = ops.send(&other, &import, None).await;
    let replaced = accept(&second, json!({}));
    let approval = approved(&other, &replaced, &ops, &boss).await;
    let (status, body) = ops.send(&other, &replaced, Some(&approval)).await;
    assert_eq!((status, &body["tools"][0]["state"]), (200, &json!("known")), "{body}");
    assert_eq!(ops.send(&other, &replaced, None).await.0, 200, "it is accepted already");
    // A tool that was removed comes back with another effect, by either way.
    assert_eq!(ops.send(&other, &vault(json!({"tools": []})), None).await.0, 200);
    let tool = |effect: &str| json!({"tools": [{"name": "open", "scope": "vault:open", "effect": effect}]});
    for act in [vault(tool("write")), accept(&second, json!({"scope": "vault:open", "effect": "write"}))] {
        let (status, refused) = ops.send(&other, &act, None).await;
        assert_eq!((status, problem(&refused)), (409, "approval_required"), "{act:?}: {refused}");
    }
    assert_eq!(ops.send(&other, &vault(tool("destructive")), None).await.0, 200);
    // One operator disables it, and two enable it again.
    let disabled = vault(crate::server::with_changes(tool("destructive"), json!({"disabled": true})));
    assert_eq!(ops.send(&other, &disabled, None).await.0, 200);
    let (status, refused) = ops.send(&other, &vault(tool("destructive")), None).await;
    assert_eq!((status, problem(&refused)), (409, "approval_required"), "{refused}");
    other.stop().await;
    server.stop().await;
}
